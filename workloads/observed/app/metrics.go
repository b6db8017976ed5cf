package main

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// How many request ids are remembered: more than any check sends to one function.
const remembered = 50_000

// metrics are the function's own count of its requests. What /metrics says and what /counts says is counted at the same place.
type metrics struct {
	registry            *prometheus.Registry
	invocations, errors prometheus.Counter
	refused             atomic.Bool
	guard               sync.Mutex
	snapshot            counts
	order               []string
}

// counts is the answer of /counts: requests since the start, and of the last 50 000 ids how often each came.
type counts struct {
	Invocations int            `json:"invocations"`
	Errors      int            `json:"errors"`
	ByRequestID map[string]int `json:"by_request_id"`
}

func newMetrics(name string) *metrics {
	labels := prometheus.Labels{"function": name}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		invocations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "serverless_function_invocations_total", Help: "Requests that the function has answered.", ConstLabels: labels,
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "serverless_function_errors_total", Help: "Requests that the function has answered with 500 or above.", ConstLabels: labels,
		}),
		snapshot: counts{ByRequestID: map[string]int{}},
	}
	m.registry.MustRegister(m.invocations, m.errors)
	return m
}

func (m *metrics) count(status int, requestID, traceID string) {
	exemplar := prometheus.Labels{}
	// 128 characters in all are allowed (OpenMetrics, Exemplars); an id that a caller made longer than it should be is left out.
	if requestID != "" && len(requestID) <= 40 {
		exemplar["request_id"] = requestID
	}
	if traceID != "" && len(traceID) <= 40 {
		exemplar["trace_id"] = traceID
	}
	failed := status >= http.StatusInternalServerError
	m.guard.Lock()
	defer m.guard.Unlock()
	add(m.invocations, exemplar)
	m.snapshot.Invocations++
	if failed {
		add(m.errors, exemplar)
		m.snapshot.Errors++
	}
	if requestID == "" {
		return
	}
	if m.snapshot.ByRequestID[requestID]++; m.snapshot.ByRequestID[requestID] > 1 {
		return
	}
	if m.order = append(m.order, requestID); len(m.order) > remembered {
		delete(m.snapshot.ByRequestID, m.order[0])
		m.order = m.order[1:]
	}
}

func add(counter prometheus.Counter, exemplar prometheus.Labels) {
	if len(exemplar) == 0 {
		counter.Inc()
		return
	}
	counter.(prometheus.ExemplarAdder).AddWithExemplar(1, exemplar)
}

func (m *metrics) handler() http.Handler {
	scraped := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if m.refused.Load() {
			http.Error(w, "scrapes are refused", http.StatusServiceUnavailable)
			return
		}
		scraped.ServeHTTP(w, r)
	})
	return mux
}
