// The issuer is the part of a token issuer that a mesh asks: it serves the documents that were last put there, counts who
// fetched them, and fails in the ways an issuer fails. It holds no private key; tokens are made by the testbed.
//
// Environment: PORT (8080), CONTROL_PORT (9000).
//
// On PORT every path is a document (issuer.go). On CONTROL_PORT:
//
//	PUT  /_documents/PATH   the body becomes the document at /PATH
//	POST /_behaviour/HOW    answer, fail (500), hang (no answer), close (nobody listens)
//	GET  /_fetches          what was fetched, by path and peer
//	POST /_fetches/reset    counts from zero again
//	GET  /healthz           200 while it runs, however it behaves
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
		fmt.Fprintln(os.Stderr, "issuer:", err)
		os.Exit(1)
	}
}

func serve(port, controlPort string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	public := newIssuer(":" + port)
	if err := public.behave("answer"); err != nil {
		return err
	}
	defer public.behave("close")
	control := &http.Server{Addr: ":" + controlPort, Handler: public.control(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- control.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	if err := control.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
