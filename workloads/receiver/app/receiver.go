package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// A notification of all alerts of a group; more is somebody's mistake.
	longestBody = 1 << 20
	// More than any check is sent; what comes after that is refused, so that no count is wrong in silence.
	most = 10_000
)

// notification is one POST as it came; Refused tells that it was answered 503, after which a sender should try again.
type notification struct {
	Inbox   string          `json:"inbox"`
	At      time.Time       `json:"at"`
	Refused bool            `json:"refused"`
	Body    json.RawMessage `json:"body"`
}

type receiver struct {
	now      func() time.Time
	mutex    sync.Mutex
	refusing map[string]bool
	came     []notification
}

func newReceiver(now func() time.Time) *receiver {
	return &receiver{now: now, refusing: map[string]bool{}, came: []notification{}}
}

// public takes notifications: the inbox is the path without its first slash.
func (r *receiver) public() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{inbox...}", func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, longestBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if !json.Valid(body) {
			http.Error(w, "no JSON", http.StatusBadRequest)
			return
		}
		if r.keep(request.PathValue("inbox"), body) {
			w.WriteHeader(http.StatusOK)
			return
		}
		http.Error(w, "told to refuse", http.StatusServiceUnavailable)
	})
	return mux
}

// keep writes a notification down and says whether it is accepted.
func (r *receiver) keep(inbox string, body []byte) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.came) == most {
		return false
	}
	refused := r.refusing[inbox]
	r.came = append(r.came, notification{Inbox: inbox, At: r.now().UTC(), Refused: refused, Body: body})
	return !refused
}

func (r *receiver) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /_notifications", func(w http.ResponseWriter, _ *http.Request) {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		w.Header().Set("content-type", "application/json")
		_ = json.NewEncoder(w).Encode(r.came)
	})
	mux.HandleFunc("POST /_behaviour/{how}/{inbox...}", func(w http.ResponseWriter, request *http.Request) {
		how := request.PathValue("how")
		if how != "refuse" && how != "accept" {
			http.Error(w, "neither refuse nor accept: "+strings.ToValidUTF8(how, "?"), http.StatusBadRequest)
			return
		}
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.refusing[request.PathValue("inbox")] = how == "refuse"
	})
	return mux
}
