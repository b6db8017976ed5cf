// The provider is an OpenID Connect provider with a login form and a few users: the op package of github.com/zitadel/oidc, which is
// certified by the OpenID Foundation, over the in-memory storage and the login pages of that project's example server.
//
// The example server itself hands out opaque access tokens and calls itself localhost, and its key, users and secrets are fixed; this
// program hands out JWTs and takes all of that from its environment.
//
// Environment: PORT (8080), ISSUER (the URL by which browsers and proxies reach it), CONFIG_FILE (JSON, see settings).
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

func serve() error {
	text, err := os.ReadFile(os.Getenv("CONFIG_FILE"))
	if err != nil {
		return fmt.Errorf("CONFIG_FILE: %w", err)
	}
	handler, err := newHandler(os.Getenv("ISSUER"), text)
	if err != nil {
		return err
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	server := &http.Server{Addr: ":" + port, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

func newHandler(issuer string, config []byte) (http.Handler, error) {
	var wanted settings
	if err := json.Unmarshal(config, &wanted); err != nil {
		return nil, fmt.Errorf("the configuration is not understood: %w", err)
	}
	store, err := newStore(wanted)
	if err != nil {
		return nil, err
	}
	// The example's own key for authorization codes is a constant.
	return exampleop.SetupServer(issuer, store, nil, false, op.WithCrypto(op.NewAESCrypto(wanted.codeKey()))), nil
}
