package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// What a request may ask of a function on its way, each a list of function=value separated by commas; all of them are handed on.
const (
	askStatus   = "x-observed-status"        // second=500: that function answers so, and calls nobody
	askFailures = "x-observed-fail-attempts" // second=1: it answers 503 as long as the mesh has tried no more than that often
	askDelay    = "x-observed-delay-ms"      // second=250: it waits that long before it answers
	// By Envoy, where a route tells it to count: 1 for a first try.
	attempt = "x-envoy-attempt-count"

	maxBodyBytes = 1 << 20
	callTimeout  = 10 * time.Second
	// A wait that no check needs would only keep a pod from ending.
	maxDelay = 5 * time.Second
)

// The headers by which a trace is continued. The proxies do not do this for a function: they see two requests, and not that one
// was made because of the other.
var traceContext = []string{
	"x-request-id", "traceparent", "tracestate", "baggage",
	"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "x-ot-span-context",
}

type function struct {
	name, pod string
	calls     []string
	client    *http.Client
	lines     *lines
	metrics   *metrics
	draining  atomic.Bool
}

// said is the body of every answer; headers are those of the trace context as they arrived, in the
// form in which a caller keeps what a function has seen.
type said struct {
	Function  string              `json:"function"`
	Pod       string              `json:"pod"`
	RequestID string              `json:"request_id"`
	Headers   map[string][]string `json:"headers"`
	Calls     []called            `json:"calls"`
}

// called is what became of one call; status 0 where nothing answered, and error then says why.
type called struct {
	URL    string          `json:"url"`
	Status int             `json:"status"`
	Error  string          `json:"error,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
}

// line is what the function writes down of a request once it knows what it answers.
type line struct {
	Event     string `json:"event"`
	RequestID string `json:"request_id"`
	TraceID   string `json:"trace_id"`
	Function  string `json:"function"`
	Pod       string `json:"pod"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Status    int    `json:"status"`
}

func newFunction(name, pod string, calls []string, out io.Writer) *function {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	return &function{
		name: name, pod: pod, calls: calls, lines: &lines{out: out}, metrics: newMetrics(name),
		client: &http.Client{Transport: transport, Timeout: callTimeout},
	}
}

func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		f.health(w)
		return
	}
	io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBodyBytes))
	body := said{Function: f.name, Pod: f.pod, RequestID: r.Header.Get("x-request-id"), Headers: map[string][]string{}, Calls: []called{}}
	for _, name := range traceContext {
		if values := r.Header.Values(name); len(values) > 0 {
			body.Headers[name] = values
		}
	}
	status, err := f.asked(r)
	if err == nil && status == http.StatusOK {
		for _, url := range f.calls {
			one := f.call(r, url)
			if body.Calls = append(body.Calls, one); one.Status == 0 || one.Status >= http.StatusInternalServerError {
				status = http.StatusBadGateway
			}
		}
	}
	if err != nil {
		status = http.StatusBadRequest
		body.Calls = append(body.Calls, called{Error: err.Error()})
	}
	trace := traceID(r.Header)
	f.metrics.count(status, body.RequestID, trace)
	f.lines.print(line{"request", body.RequestID, trace, f.name, f.pod, r.Method, r.URL.Path, status})
	w.Header().Set("x-version", f.name)
	w.Header().Set("x-pod", f.pod)
	w.Header().Set("x-request-id", body.RequestID)
	answer(w, status, body)
}

// asked waits as long as this function is to wait, and returns the status that it is to answer with.
func (f *function) asked(r *http.Request) (int, error) {
	wait, err := f.of(r, askDelay)
	if err != nil {
		return 0, err
	}
	if wait > 0 {
		select {
		case <-time.After(min(time.Duration(wait)*time.Millisecond, maxDelay)):
		case <-r.Context().Done():
		}
	}
	failures, err := f.of(r, askFailures)
	if err != nil {
		return 0, err
	}
	// Without a count it is the first try: whoever does not count does not repeat.
	tried := 1
	if text := r.Header.Get(attempt); text != "" {
		if tried, err = strconv.Atoi(text); err != nil {
			return 0, fmt.Errorf("%s: %w", attempt, err)
		}
	}
	if tried <= failures {
		return http.StatusServiceUnavailable, nil
	}
	status, err := f.of(r, askStatus)
	switch {
	case err != nil:
		return 0, err
	case status == 0:
		return http.StatusOK, nil
	case status < 200 || status > 599:
		return 0, fmt.Errorf("%s: %d is no status to answer with", askStatus, status)
	}
	return status, nil
}

// of returns what a header asks of this function, 0 where it asks nothing of it.
func (f *function) of(r *http.Request, header string) (int, error) {
	for _, one := range strings.Split(r.Header.Get(header), ",") {
		if name, value, found := strings.Cut(strings.TrimSpace(one), "="); found && name == f.name {
			number, err := strconv.Atoi(value)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", header, err)
			}
			return number, nil
		}
	}
	return 0, nil
}

func (f *function) call(r *http.Request, url string) called {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return called{URL: url, Error: err.Error()}
	}
	for _, name := range append([]string{askStatus, askFailures, askDelay}, traceContext...) {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := f.client.Do(request)
	if err != nil {
		return called{URL: url, Error: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBodyBytes))
	if err != nil {
		return called{URL: url, Error: err.Error()}
	}
	// What is no JSON was not said by one of us: a proxy answered in its place.
	if !json.Valid(text) {
		text, _ = json.Marshal(string(text))
	}
	return called{URL: url, Status: response.StatusCode, Answer: text}
}

func (f *function) health(w http.ResponseWriter) {
	if f.draining.Load() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

// traceID returns the id of the trace that a request belongs to, by either propagation; empty where it says none.
func traceID(header http.Header) string {
	if parts := strings.Split(header.Get("traceparent"), "-"); len(parts) == 4 {
		return parts[1]
	}
	if id := header.Get("x-b3-traceid"); id != "" {
		return id
	}
	id, _, found := strings.Cut(header.Get("b3"), "-")
	if !found {
		return ""
	}
	return id
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
