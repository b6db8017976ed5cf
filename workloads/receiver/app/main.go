// The receiver is where alerts are sent: it keeps every notification that it was sent with the time at which it came, and
// refuses them for as long as it is told to.
//
// Environment: PORT (8080), CONTROL_PORT (9000).
//
// On PORT a POST of JSON to any path is a notification for the inbox of that name (receiver.go). On CONTROL_PORT:
//
//	GET  /_notifications        what came, oldest first, and what was refused
//	POST /_behaviour/refuse/X   answer 503 to what is for inbox X, and keep that it came
//	POST /_behaviour/accept/X   answer 200 again
//	GET  /healthz               200 while it runs, however it behaves
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := serve(environment("PORT", "8080"), environment("CONTROL_PORT", "9000")); err != nil {
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}

func serve(port, controlPort string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	kept := newReceiver(time.Now)
	servers := []*http.Server{
		{Addr: ":" + port, Handler: kept.public(), ReadHeaderTimeout: 10 * time.Second},
		{Addr: ":" + controlPort, Handler: kept.control(), ReadHeaderTimeout: 10 * time.Second},
	}
	failed := make(chan error, len(servers))
	for _, server := range servers {
		go func() { failed <- server.ListenAndServe() }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	for _, server := range servers {
		if err := server.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return err
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
