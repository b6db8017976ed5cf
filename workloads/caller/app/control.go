package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

const (
	maxOrderBytes    = 4 << 20
	maxDraws         = 4 // at once
	maxRememberedIDs = 1000
)

// control serves the orders and remembers their ids: an HTTP client or proxy between the person and the caller may send a
// request again, and a draw that is made twice is not the draw that was declared.
type control struct {
	running chan struct{}

	mutex sync.Mutex
	seen  map[string]bool
	order []string
}

func newControl() *control {
	return &control{running: make(chan struct{}, maxDraws), seen: map[string]bool{}}
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		io.WriteString(w, "ok\n")
	case "/draw":
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			refuse(w, http.StatusMethodNotAllowed, errors.New("a draw is ordered with POST"))
			return
		}
		c.draw(w, r)
	default:
		refuse(w, http.StatusNotFound, errors.New("there is only POST /draw and GET /healthz"))
	}
}

func (c *control) draw(w http.ResponseWriter, r *http.Request) {
	asked, err := readOrder(http.MaxBytesReader(w, r.Body, maxOrderBytes))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	select {
	case c.running <- struct{}{}:
		defer func() { <-c.running }()
	default:
		refuse(w, http.StatusTooManyRequests, fmt.Errorf("%d draws are running; one more would change what they measure", maxDraws))
		return
	}
	if !c.first(asked.ID) {
		refuse(w, http.StatusConflict, fmt.Errorf("draw %q was already ordered", asked.ID))
		return
	}
	made := asked.draw(r.Context())
	if r.Context().Err() != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 64<<10)
	if err := made.write(out); err == nil {
		out.Flush()
	}
}

// first says whether an id is new, and remembers it; no id is always new.
func (c *control) first(id string) bool {
	if id == "" {
		return true
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.seen[id] {
		return false
	}
	if len(c.order) == maxRememberedIDs {
		delete(c.seen, c.order[0])
		c.order = c.order[1:]
	}
	c.seen[id] = true
	c.order = append(c.order, id)
	return true
}

func refuse(w http.ResponseWriter, status int, why error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": why.Error()})
}
