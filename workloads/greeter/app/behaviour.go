package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const longest = 60 * time.Second

// behaviour is what a request asks for, by a header or by a query parameter of the same name (the header wins):
//
//	x-greeter-status: 503     answers with this status (200 to 599)
//	x-greeter-delay: 250ms    answers that much later (at most 60s)
//	x-greeter-hang: true      holds the request until its client goes away, 60 s pass or the pod ends; never answers
//	x-greeter-close: true     closes the connection (HTTP/2: resets the stream) without an answer
//	x-greeter-fail-first: 2   answers the first 2 requests with this x-request-id with x-greeter-status (503 if none),
//	                          the later ones with 200
//	x-greeter-only: v2        asks the version v2 alone; the others answer as if nothing had been asked
//	x-greeter-hold: load-1    holds the request until load-1 is released (gates.go) or 60 s pass, then goes on with the rest
//
// A delay comes before the rest. Anything else than these values is answered with 400.
type behaviour struct {
	status    int
	delay     time.Duration
	hang      bool
	close     bool
	failFirst int
	only      string
	hold      string
}

func behaviourOf(r *http.Request) (behaviour, error) {
	var query url.Values
	if r.URL.RawQuery != "" {
		query = r.URL.Query()
	}
	asked := func(name string) string {
		if value := r.Header.Get(name); value != "" {
			return value
		}
		return query.Get(name)
	}
	b := behaviour{only: asked("x-greeter-only"), hold: asked("x-greeter-hold")}
	var err error
	if b.status, err = number(asked, "x-greeter-status", 200, 599); err != nil {
		return b, err
	}
	if b.failFirst, err = number(asked, "x-greeter-fail-first", 0, maxIDs); err != nil {
		return b, err
	}
	if b.failFirst > 0 && r.Header.Get("x-request-id") == "" {
		return b, errors.New("x-greeter-fail-first counts by x-request-id, and the request has none")
	}
	if b.hang, err = truth(asked, "x-greeter-hang"); err != nil {
		return b, err
	}
	if b.close, err = truth(asked, "x-greeter-close"); err != nil {
		return b, err
	}
	if text := asked("x-greeter-delay"); text != "" {
		b.delay, err = time.ParseDuration(text)
		if err != nil || b.delay < 0 || b.delay > longest {
			return b, fmt.Errorf("x-greeter-delay is %q, expected 0s to %s", text, longest)
		}
	}
	return b, nil
}

// of is the behaviour that one version shows; what is asked of another is held to its form all the same.
func (b behaviour) of(version string) behaviour {
	if b.only != "" && b.only != version {
		return behaviour{}
	}
	return b
}

// statusOf is the status for the attempt-th request (from 1) with one request id.
func (b behaviour) statusOf(attempt int) int {
	switch {
	case b.failFirst > 0 && attempt > b.failFirst:
		return http.StatusOK
	case b.status != 0:
		return b.status
	case b.failFirst > 0:
		return http.StatusServiceUnavailable
	default:
		return http.StatusOK
	}
}

// abandons waits as long as was asked and says whether the request is to end without an answer.
func (b behaviour) abandons(client context.Context, draining <-chan struct{}) bool {
	if b.delay > 0 && !held(client, nil, b.delay) {
		return true
	}
	if b.hang {
		held(client, draining, longest)
	}
	return b.hang || b.close
}

// held waits; it says false when the client went away or the pod is ending first.
func held(client context.Context, draining <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-client.Done():
	case <-draining:
	}
	return false
}

func number(asked func(string) string, name string, from, to int) (int, error) {
	text := asked(name)
	if text == "" {
		return 0, nil
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < from || value > to {
		return 0, fmt.Errorf("%s is %q, expected %d to %d", name, text, from, to)
	}
	return value, nil
}

func truth(asked func(string) string, name string) (bool, error) {
	switch text := asked(name); text {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	default:
		return false, fmt.Errorf("%s is %q, expected true or false", name, text)
	}
}
