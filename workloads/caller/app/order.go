package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	maxCount       = 200_000
	maxConcurrency = 1_000
	maxTimeoutMS   = 600_000
	maxHeaders     = 200
	maxHeaderBytes = 64 << 10
	// Beyond this many calls an answer with every header would be hundreds of megabytes.
	maxCountWithAllHeaders = 20_000
	// And beyond this many, one with every body.
	maxCountWithBodies = 1_000
)

// order is the body of POST /draw. Only url is needed; the zero value of the rest is what its comment says.
type order struct {
	ID               string      `json:"id"`                // an id seen before is refused; "" is not remembered
	URL              string      `json:"url"`               // http[s]://host[:port][/target]; the target is sent as written
	Method           string      `json:"method"`            // GET
	Path             string      `json:"path"`              // replaces the target of the url, sent as written
	Headers          [][2]string `json:"headers"`           // sent in this order, repeats and empty values included
	BodyBase64       string      `json:"body_base64"`       // no body
	Count            int         `json:"count"`             // 1
	Concurrency      int         `json:"concurrency"`       // 1
	TimeoutMS        int         `json:"timeout_ms"`        // 10 000, per call, connecting included
	FreshConnections bool        `json:"fresh_connections"` // false: each of the concurrent callers keeps one connection
	RatePerS         float64     `json:"rate_per_s"`        // 0: as fast as the answers come
	KeepHeaders      *[]string   `json:"keep_headers"`      // null: every response header
	KeepSeen         *[]string   `json:"keep_seen"`         // null: every request header as the function saw it
	KeepBody         bool        `json:"keep_body"`         // false: the answers' bodies are looked into, and not kept
	TLS              *clientTLS  `json:"tls"`               // of an https url; null: no certificate of its own, any server's taken
	Protocol         string      `json:"protocol"`          // http/1.1; or h2 (prior knowledge) or grpc (the target is the method)

	address           string // host:port to connect to
	authority, target string
	body              []byte
	sent              preparedRequest
}

func readOrder(from io.Reader) (*order, error) {
	decoder := json.NewDecoder(from)
	// A misspelt field would otherwise be a draw other than the one that was declared.
	decoder.DisallowUnknownFields()
	asked := &order{}
	if err := decoder.Decode(asked); err != nil {
		return nil, fmt.Errorf("the order is not understood: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the order is followed by something else")
	}
	asked.fill()
	return asked, asked.prepare()
}

func (o *order) fill() {
	if o.Method == "" {
		o.Method = "GET"
	}
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	if o.TimeoutMS == 0 {
		o.TimeoutMS = 10_000
	}
	if o.Protocol == "" {
		o.Protocol = http1
	}
}

func (o *order) prepare() error {
	for _, bound := range []struct {
		name      string
		value, to int
	}{{"count", o.Count, maxCount}, {"concurrency", o.Concurrency, maxConcurrency}, {"timeout_ms", o.TimeoutMS, maxTimeoutMS}} {
		if bound.value < 1 || bound.value > bound.to {
			return fmt.Errorf("%s is %d, expected 1 to %d", bound.name, bound.value, bound.to)
		}
	}
	if o.RatePerS < 0 {
		return fmt.Errorf("rate_per_s is %v, expected 0 (as fast as possible) or more", o.RatePerS)
	}
	if o.Count > maxCountWithAllHeaders && (o.KeepHeaders == nil || o.KeepSeen == nil) {
		return fmt.Errorf("count is %d: above %d name the headers to keep in keep_headers and keep_seen", o.Count, maxCountWithAllHeaders)
	}
	if o.Count > maxCountWithBodies && o.KeepBody {
		return fmt.Errorf("count is %d, expected at most %d where bodies are kept", o.Count, maxCountWithBodies)
	}
	err := o.checkProtocol()
	if err != nil {
		return err
	}
	if o.authority, o.target, err = splitURL(o.URL); err != nil {
		return err
	}
	if o.Path != "" {
		o.target = o.Path
	}
	if o.address, err = dialAddress(o.authority, o.secure()); err != nil {
		return err
	}
	if err = o.prepareTLS(); err != nil {
		return err
	}
	if o.body, err = base64.StdEncoding.DecodeString(o.BodyBase64); err != nil {
		return fmt.Errorf("body_base64 is not base64: %w", err)
	}
	o.sent, err = prepareRequest(o, o.authority, o.target)
	return err
}

func (o *order) timeout() time.Duration { return time.Duration(o.TimeoutMS) * time.Millisecond }

// splitURL leaves the target alone: net/url would unescape and resolve what a check sends on purpose ("/api/..%2fadmin").
func splitURL(raw string) (authority, target string, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", "", fmt.Errorf("url is %q, expected http[s]://host[:port][/target]", raw)
	}
	authority, target = rest, "/"
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		authority, target = rest[:at], rest[at:]
		if target[0] == '?' {
			target = "/" + target
		}
	}
	if authority == "" || strings.ContainsAny(authority, "@ ") {
		return "", "", fmt.Errorf("url is %q, expected http[s]://host[:port][/target]", raw)
	}
	return authority, target, nil
}

func dialAddress(authority string, secure bool) (string, error) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		usual := map[bool]string{false: "80", true: "443"}[secure]
		return net.JoinHostPort(strings.Trim(authority, "[]"), usual), nil
	}
	if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
		return "", fmt.Errorf("port %q of the url is not 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}
