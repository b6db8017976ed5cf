// The greeter is the sample function: it says which version and pod answered and what it saw of the request.
//
// Environment: PORT (8080; several, separated by commas, are served alike), VERSION ("unversioned"), POD_NAME (host name), TARGET
// (adds "greeting": "Hello <TARGET>!", and the header x-greeting), DRAIN_DELAY (0s: how long to go on accepting after SIGTERM, for the mesh to hear that the
// pod leaves), ADMIN_PORT (none: a second port that serves only those below, for a testbed that the mesh would refuse), DEAF_PORT
// (none: a port that answers nothing, not even a SYN: deaf.go), SECRET_FILE (none: a request with the header x-nonce is answered
// with x-seal, which shows that the function has the file: seal.go).
//
//	GET  /healthz        200 while it serves, 503 once it drains
//	GET  /metrics        Prometheus text
//	GET  /_counts        what was counted (counts.go)
//	POST /_counts/reset  counts from zero again
//	POST /_release/NAME  lets go what x-greeter-hold: NAME holds, and holds it no more
//	POST /_search        where the container holds the text that is sent (search.go); on the second port only
//
// It prints one JSON line when it listens (started.go) and one for each request.
//
// Every other path, with any method, is a request to the function (greeter.go); a request may also ask it to misbehave
// (behaviour.go). HTTP/1.1 and HTTP/2 without TLS are served on one port.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A pod of the suites is given 2 s to end; what has not been answered by then is cut off either way.
const drainBound = 1500 * time.Millisecond

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "greeter:", err)
		os.Exit(1)
	}
}

func serve() error {
	drainDelay, err := time.ParseDuration(environment("DRAIN_DELAY", "0s"))
	if err != nil {
		return fmt.Errorf("DRAIN_DELAY: %w", err)
	}
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	began := processBeganMs()
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	function := newGreeter(environment("VERSION", "unversioned"), pod, os.Getenv("TARGET"))
	function.secretFile = os.Getenv("SECRET_FILE")
	servers := map[string]*http.Server{}
	for _, port := range strings.Split(environment("PORT", "8080"), ",") {
		servers[port] = function.server(function)
	}
	if port := os.Getenv("ADMIN_PORT"); port != "" {
		servers[port] = function.server(http.HandlerFunc(function.administer))
	}
	if text := os.Getenv("DEAF_PORT"); text != "" {
		port, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("DEAF_PORT: %w", err)
		}
		filling, err := deafen(port)
		if err != nil {
			return fmt.Errorf("DEAF_PORT: %w", err)
		}
		defer hangUp(filling)
	}
	failed := make(chan error, len(servers))
	for port, server := range servers {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() { failed <- server.Serve(listener) }()
	}
	function.sayListening(began)
	select {
	case err := <-failed:
		return err
	case <-stopping.Done():
	}
	close(function.draining)
	time.Sleep(drainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), drainBound)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
	}
	return nil
}

func hangUp(connections []net.Conn) {
	for _, one := range connections {
		one.Close()
	}
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
