package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	releases       = "/_release/"
	maxBodyBytes   = 1 << 20
	maxHeaderBytes = 64 << 10
)

// greeting is the body of every answer of the function. Header names are lower-case, and "host" is among them.
type greeting struct {
	Greeting  string              `json:"greeting,omitempty"`
	Version   string              `json:"version"`
	Pod       string              `json:"pod"`
	Path      string              `json:"path"` // as it arrived: neither unescaped nor cleaned
	Query     string              `json:"query"`
	Method    string              `json:"method"`
	Protocol  string              `json:"protocol"`
	Host      string              `json:"host"`
	Headers   map[string][]string `json:"headers"`
	BodyBytes int64               `json:"body_bytes"`
	Count     int64               `json:"count"` // this pod's request number, from 1
	RequestID string              `json:"request_id"`
}

type greeter struct {
	version, pod, target string
	secretFile           string
	root                 string // below which a search looks
	counts               *counts
	gates                *gates
	draining             chan struct{} // closed once no more work is wanted
	grpc                 http.Handler
	out                  *log.Logger
}

func newGreeter(version, pod, target string) *greeter {
	g := &greeter{
		version: version, pod: pod, target: target, counts: newCounts(), gates: newGates(), draining: make(chan struct{}), out: log.New(os.Stdout, "", 0),
		root: "/",
	}
	g.grpc = g.newGRPC()
	return g
}

func (g *greeter) server(handler http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, &connection{})
		},
	}
}

// ServeHTTP has no ServeMux: that would redirect "//" and ".." paths, which checks send on purpose.
func (g *greeter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == "/healthz", path == "/metrics", path == "/_counts", path == "/_counts/reset", strings.HasPrefix(path, releases):
		g.administer(w, r)
	case isGRPC(r):
		g.grpc.ServeHTTP(w, r)
	default:
		g.greet(w, r)
	}
}

func (g *greeter) administer(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, releases); ok {
		g.release(w, r, name)
		return
	}
	switch r.URL.Path {
	case "/healthz":
		g.health(w)
	case "/metrics":
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		io.WriteString(w, g.counts.metrics(g.version))
	case "/_counts":
		answer(w, http.StatusOK, g.counts.snapshot())
	case "/_counts/reset":
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			complain(w, http.StatusMethodNotAllowed, errors.New("counts are reset with POST"))
			return
		}
		g.counts.reset()
		answer(w, http.StatusOK, g.counts.snapshot())
	case "/_search":
		answerSearch(w, r, g.root)
	default:
		complain(w, http.StatusNotFound, errors.New("the function is served on another port"))
	}
}

func (g *greeter) release(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method != http.MethodPost || name == "" {
		w.Header().Set("Allow", http.MethodPost)
		complain(w, http.StatusMethodNotAllowed, errors.New("what is held is released by name, with POST"))
		return
	}
	g.gates.release(name)
	answer(w, http.StatusOK, g.counts.snapshot())
}

func (g *greeter) health(w http.ResponseWriter) {
	select {
	case <-g.draining:
		complain(w, http.StatusServiceUnavailable, errors.New("draining"))
	default:
		io.WriteString(w, "ok\n")
	}
}

func (g *greeter) greet(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("x-request-id")
	path, query, _ := strings.Cut(r.RequestURI, "?")
	count, attempt := g.counts.request(path, id, connectionOf(r.Context()))
	g.log(id, r.Method, path)
	defer g.counts.ended()
	w.Header().Set("x-version", g.version)
	w.Header().Set("x-pod", g.pod)
	w.Header().Set("x-request-id", id)
	if g.target != "" {
		w.Header().Set("x-greeting", g.greeting())
	}
	if sealed := seal(g.secretFile, r.Header.Get("x-nonce")); sealed != "" {
		w.Header().Set("x-seal", sealed)
	}

	// Read to the end: net/http notices a client that goes away only then.
	read, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		status := http.StatusBadRequest
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			status = http.StatusRequestEntityTooLarge
			err = fmt.Errorf("the body is longer than %d bytes", maxBodyBytes)
		}
		complain(w, status, err)
		return
	}
	wanted, err := behaviourOf(r)
	if err != nil {
		complain(w, http.StatusBadRequest, err)
		return
	}
	wanted = wanted.of(g.version)
	status := wanted.statusOf(attempt)
	if !g.gates.pass(r.Context(), g.draining, wanted.hold) || wanted.abandons(r.Context(), g.draining) {
		g.counts.failed()
		// The one way to close without an answer that HTTP/1.1 and HTTP/2 share.
		panic(http.ErrAbortHandler)
	}
	if status >= http.StatusInternalServerError {
		g.counts.failed()
	}
	said := greeting{
		Version: g.version, Pod: g.pod, Path: path, Query: query, Method: r.Method, Protocol: r.Proto, Host: r.Host,
		Headers: lowerCased(r), BodyBytes: read, Count: count, RequestID: id,
	}
	if g.target != "" {
		said.Greeting = g.greeting()
	}
	answer(w, status, said)
}

// greeting is what the body says, and the header x-greeting, which records keep.
func (g *greeter) greeting() string { return "Hello " + g.target + "!" }

// logged is the line that the function writes for every request that reaches it, before anything else is done with it.
type logged struct {
	RequestID string `json:"request_id"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Version   string `json:"version"`
}

func (g *greeter) log(id, method, path string) {
	line, _ := json.Marshal(logged{id, method, path, g.version})
	g.out.Print(string(line))
}

func lowerCased(r *http.Request) map[string][]string {
	headers := make(map[string][]string, len(r.Header)+1)
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = values
	}
	headers["host"] = []string{r.Host}
	return headers
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

func complain(w http.ResponseWriter, status int, why error) {
	answer(w, status, map[string]string{"error": why.Error()})
}
