// The observed function: it calls on, hands the trace context on, and says of every request what it saw of it, in its log and in its
// metrics, so that what others claim to have seen can be compared with its own word.
//
// Environment: NAME (host name: the function's name), POD_NAME (host name), PORT (8080), METRICS_PORT (9102), CONTROL_PORT (9000),
// CALLS (none: urls, separated by commas, that a request calls in order).
//
//	GET  :PORT /healthz            200 while it serves, 503 once it drains
//	     :PORT any other path      a request to the function (function.go)
//	GET  :METRICS_PORT /metrics    Prometheus text, or OpenMetrics with exemplars where the scraper asks for it (metrics.go)
//	GET  :CONTROL_PORT /counts     what was counted
//	POST :CONTROL_PORT /write      writes the body to standard output, byte for byte
//	POST :CONTROL_PORT /emit       writes numbered lines at a rate (lines.go)
//	POST :CONTROL_PORT /scrapes    refuses scrapes while the body is "refused", and answers them again once it is "answered"
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// A pod of the suites is given 2 s to end; what has not been answered by then is cut off either way.
const drainBound = 1500 * time.Millisecond

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "observed:", err)
		os.Exit(1)
	}
}

func serve() error {
	host, _ := os.Hostname()
	var calls []string
	if text := os.Getenv("CALLS"); text != "" {
		calls = strings.Split(text, ",")
	}
	observed := newFunction(environment("NAME", host), environment("POD_NAME", host), calls, os.Stdout)
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	servers := []*http.Server{
		{Addr: ":" + environment("PORT", "8080"), Handler: observed, ReadHeaderTimeout: 10 * time.Second},
		{Addr: ":" + environment("METRICS_PORT", "9102"), Handler: observed.metrics.handler(), ReadHeaderTimeout: 10 * time.Second},
		{Addr: ":" + environment("CONTROL_PORT", "9000"), Handler: observed.control(), ReadHeaderTimeout: 10 * time.Second},
	}
	failed := make(chan error, len(servers))
	for _, server := range servers {
		go func() { failed <- server.ListenAndServe() }()
	}
	select {
	case err := <-failed:
		return err
	case <-stopping.Done():
	}
	observed.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), drainBound)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
			server.Close()
		}
	}
	return nil
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
