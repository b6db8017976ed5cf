// The caller makes a number of HTTP calls on one request and answers with one record per call.
//
// It listens on CONTROL_PORT (default 9000):
//
//	POST /draw     makes the calls that the body describes (see order in order.go), answers with a drawn (draw.go);
//	               400 for an order it does not understand, 409 for an order id it has seen, 429 while four draws run.
//	GET  /healthz  answers 200 once it listens.
//
// With KEEP_WARM_URL it visits that address from its start on, KEEP_WARM_EVERY (60s) after each answer, and writes a line of each (warm.go).
//
// A draw whose client goes away stops. A draw in progress at SIGTERM is given up.
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
	port := os.Getenv("CONTROL_PORT")
	if port == "" {
		port = "9000"
	}
	if err := serve(":" + port); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := startWarming(ctx); err != nil {
		return err
	}
	server := &http.Server{Addr: address, Handler: newControl(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Nobody waits for a draw of a pod that is being deleted.
	if err := server.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
