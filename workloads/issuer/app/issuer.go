package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	documents    = "/_documents"
	behaviours   = "/_behaviour/"
	maxDocument  = 1 << 20
	maxDocuments = 100
	maxFetchers  = 1000
)

// fetch is who asked for what: istiod fetches keys for the proxies, or a proxy for itself.
type fetch struct {
	Path  string `json:"path"`
	Peer  string `json:"peer"`  // IP address
	Agent string `json:"agent"` // User-Agent
}

type fetched struct {
	fetch
	Count int `json:"count"`
}

type issuer struct {
	address string

	mutex     sync.Mutex
	documents map[string][]byte
	behaviour string
	fetches   map[fetch]int
	server    *http.Server  // nil while nobody listens
	changed   chan struct{} // closed when the behaviour changes, which ends what hangs
}

func newIssuer(address string) *issuer {
	return &issuer{
		address: address, documents: map[string][]byte{}, behaviour: "close", fetches: map[fetch]int{}, changed: make(chan struct{}),
	}
}

// behave returns once what it asks for is so: after "close" a connection is refused, after the others one is taken.
func (i *issuer) behave(how string) error {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if !slices.Contains([]string{"answer", "fail", "hang", "close"}, how) {
		return fmt.Errorf("behaviour %q is none of answer, fail, hang, close", how)
	}
	if how == "close" && i.server != nil {
		i.server.Close()
		i.server = nil
	}
	if how != "close" && i.server == nil {
		listener, err := net.Listen("tcp", i.address)
		if err != nil {
			return err
		}
		i.address = listener.Addr().String()
		i.server = &http.Server{Handler: i, ReadHeaderTimeout: 10 * time.Second}
		go i.server.Serve(listener)
	}
	i.behaviour = how
	close(i.changed)
	i.changed = make(chan struct{})
	return nil
}

// ServeHTTP serves the documents. A fetch counts when it arrives, whatever becomes of it.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	peer, _, _ := net.SplitHostPort(r.RemoteAddr)
	i.mutex.Lock()
	who := fetch{r.URL.Path, peer, r.UserAgent()}
	if _, known := i.fetches[who]; known || len(i.fetches) < maxFetchers {
		i.fetches[who]++
	}
	behaviour, changed := i.behaviour, i.changed
	body, found := i.documents[r.URL.Path]
	i.mutex.Unlock()
	switch {
	case behaviour == "hang":
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case behaviour == "fail":
		answer(w, http.StatusInternalServerError, map[string]string{"error": "failing as ordered"})
	case !found:
		answer(w, http.StatusNotFound, map[string]string{"error": "no such document"})
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	}
}

func (i *issuer) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /_fetches", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, i.snapshot()) })
	mux.HandleFunc("POST /_fetches/reset", func(w http.ResponseWriter, _ *http.Request) {
		i.mutex.Lock()
		i.fetches = map[fetch]int{}
		i.mutex.Unlock()
		answer(w, http.StatusOK, i.snapshot())
	})
	mux.HandleFunc("POST "+behaviours, func(w http.ResponseWriter, r *http.Request) {
		if err := i.behave(strings.TrimPrefix(r.URL.Path, behaviours)); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusOK, i.snapshot())
	})
	mux.HandleFunc("PUT "+documents+"/", i.publish)
	return mux
}

func (i *issuer) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDocument))
	if err == nil && !json.Valid(body) {
		err = errors.New("a document is JSON")
	}
	path := strings.TrimPrefix(r.URL.Path, documents)
	i.mutex.Lock()
	if _, known := i.documents[path]; err == nil && !known && len(i.documents) == maxDocuments {
		err = fmt.Errorf("there are %d documents already", maxDocuments)
	}
	if err == nil {
		i.documents[path] = body
	}
	i.mutex.Unlock()
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, i.snapshot())
}

func (i *issuer) snapshot() []fetched {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	all := make([]fetched, 0, len(i.fetches))
	for who, count := range i.fetches {
		all = append(all, fetched{who, count})
	}
	slices.SortFunc(all, func(a, b fetched) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Agent, b.Agent))
	})
	return all
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
