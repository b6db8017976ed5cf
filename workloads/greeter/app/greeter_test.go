package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T) (*greeter, string) {
	t.Helper()
	g := newGreeter("v1", "pod-1", "World")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := g.server(g)
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return g, "http://" + listener.Addr().String()
}

func ask(t *testing.T, g http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	g.ServeHTTP(recorder, request)
	return recorder
}

func TestAnswerSaysWhatArrived(t *testing.T) {
	g := newGreeter("v1", "pod-1", "World")
	got := ask(t, g, "DELETE", "/api/..//a%2fb?x=1", "User-Type", "premium", "User-Type", "", "X-Request-Id", "id-1")
	var said greeting
	if err := json.Unmarshal(got.Body.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	if said.Path != "/api/..//a%2fb" || said.Query != "x=1" || said.Method != "DELETE" || said.Count != 1 || said.Greeting != "Hello World!" {
		t.Errorf("said %+v", said)
	}
	if fmt.Sprint(said.Headers["user-type"]) != "[premium ]" || fmt.Sprint(said.Headers["host"]) != "[example.com]" {
		t.Errorf("headers %v", said.Headers)
	}
	if h := got.Header(); h.Get("x-greeting") != "Hello World!" || h.Get("x-version") != "v1" || h.Get("x-pod") != "pod-1" || h.Get("x-request-id") != "id-1" {
		t.Errorf("response headers %v", h)
	}
}

func TestFailFirstCountsByRequestID(t *testing.T) {
	g := newGreeter("v1", "pod-1", "")
	for attempt, want := range []int{503, 503, 200, 200} {
		if got := ask(t, g, "GET", "/", "X-Greeter-Fail-First", "2", "X-Request-Id", "a").Code; got != want {
			t.Errorf("attempt %d of a: %d, want %d", attempt+1, got, want)
		}
	}
	if got := ask(t, g, "GET", "/?x-greeter-fail-first=1&x-greeter-status=500", "X-Request-Id", "b").Code; got != 500 {
		t.Errorf("another id starts again: %d, want 500", got)
	}
	if got := ask(t, g, "GET", "/", "X-Greeter-Fail-First", "2").Code; got != 400 {
		t.Errorf("without an id: %d, want 400", got)
	}
}

func TestBehaviourOfOneVersionAlone(t *testing.T) {
	g := newGreeter("v1", "pod-1", "")
	for target, want := range map[string]int{
		"/?x-greeter-status=503&x-greeter-only=v1": 503,
		"/?x-greeter-status=503&x-greeter-only=v2": 200,
		"/?x-greeter-close=true&x-greeter-only=v2": 200,
		"/?x-greeter-only=v1":                      200,
		"/?x-greeter-status=x&x-greeter-only=v2":   400,
	} {
		if got := ask(t, g, "GET", target).Code; got != want {
			t.Errorf("%s: %d, want %d", target, got, want)
		}
	}
	if got := ask(t, g, "GET", "/", "X-Greeter-Delay", "60s", "X-Greeter-Only", "v2").Code; got != 200 {
		t.Errorf("a delay that another version is asked for: %d, want 200", got)
	}
}

func TestMisspeltBehaviourIsRefused(t *testing.T) {
	g := newGreeter("v1", "pod-1", "")
	for _, bad := range []string{"status=199", "status=600", "status=x", "delay=61s", "delay=-1s", "delay=5", "hang=yes", "close=1", "fail-first=-1"} {
		if got := ask(t, g, "GET", "/?x-greeter-"+bad, "X-Request-Id", "a").Code; got != 400 {
			t.Errorf("%s: %d, want 400", bad, got)
		}
	}
}

func TestMemoryOfIDsAndPathsIsBounded(t *testing.T) {
	c := newCounts()
	for i := range maxIDs + 5 {
		c.request(fmt.Sprintf("/%d", i), fmt.Sprint(i), nil)
	}
	s := c.snapshot()
	if len(s.ByRequestID) != maxIDs || s.ByRequestID["4"] != 0 || s.ByRequestID["5"] != 1 || s.Total != maxIDs+5 {
		t.Errorf("%d ids, oldest %d %d, total %d", len(s.ByRequestID), s.ByRequestID["4"], s.ByRequestID["5"], s.Total)
	}
	if len(s.ByPath) != maxPaths+1 || s.ByPath[otherPaths] != maxIDs+5-maxPaths {
		t.Errorf("%d paths, %d others", len(s.ByPath), s.ByPath[otherPaths])
	}
}

func TestConnectionsAreCountedOnceAndAnewAfterReset(t *testing.T) {
	g, url := start(t)
	get := func(client *http.Client, path string) {
		response, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	first, second := &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{}}
	defer first.CloseIdleConnections()
	defer second.CloseIdleConnections()
	get(first, "/healthz")
	get(first, "/")
	get(first, "/")
	get(second, "/a")
	if s := g.counts.snapshot(); s.Connections != 2 || s.Total != 3 || s.ByPath["/"] != 2 {
		t.Errorf("%+v, want 2 connections and 3 requests", s)
	}
	g.counts.reset()
	get(first, "/")
	if s := g.counts.snapshot(); s.Connections != 1 || s.Total != 1 {
		t.Errorf("%+v, want 1 connection and 1 request after the reset", s)
	}
}

func TestCloseAndHangEndWithoutAnAnswer(t *testing.T) {
	g, url := start(t)
	if _, err := http.Get(url + "/?x-greeter-close=true"); !errors.Is(err, io.EOF) {
		t.Errorf("close: %v, want EOF", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, "GET", url+"/?x-greeter-hang=true", nil)
	if _, err := http.DefaultClient.Do(request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %v, want the client's own deadline", err)
	}
	// The handler notices that its client is gone; until then the error is not counted.
	for range 100 {
		if strings.Contains(g.counts.metrics("v1"), `serverless_function_errors_total{version="v1"} 2`) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("metrics:\n%s", g.counts.metrics("v1"))
}

func TestLongBodyIsRefused(t *testing.T) {
	_, url := start(t)
	response, err := http.Post(url, "text/plain", strings.NewReader(strings.Repeat("x", maxBodyBytes+1)))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 413 {
		t.Errorf("status %d, want 413", response.StatusCode)
	}
}

func TestTheAdminPortDoesNotServeTheFunction(t *testing.T) {
	g := newGreeter("v1", "pod-1", "")
	admin := http.HandlerFunc(g.administer)
	if got := ask(t, admin, "GET", "/api").Code; got != 404 || g.counts.snapshot().Total != 0 {
		t.Errorf("status %d, counts %+v", got, g.counts.snapshot())
	}
	ask(t, g, "GET", "/api")
	if got := ask(t, admin, "GET", "/_counts"); !strings.Contains(got.Body.String(), `"total":1`) {
		t.Errorf("counts %s", got.Body)
	}
	if got := ask(t, admin, "GET", "/_counts/reset").Code; got != 405 || g.counts.snapshot().Total != 1 {
		t.Errorf("a reset by GET: %d", got)
	}
	if ask(t, admin, "POST", "/_counts/reset"); g.counts.snapshot().Total != 0 {
		t.Errorf("after the reset: %+v", g.counts.snapshot())
	}
}

func TestHTTP2WithoutTLSIsServed(t *testing.T) {
	_, url := start(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer client.CloseIdleConnections()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.Proto != "HTTP/2.0" {
		t.Errorf("protocol %s", response.Proto)
	}
}

func TestDrainingFailsReadinessAndReleasesHangs(t *testing.T) {
	g := newGreeter("v1", "pod-1", "")
	if got := ask(t, g, "GET", "/healthz").Code; got != 200 {
		t.Errorf("before: %d", got)
	}
	close(g.draining)
	if got := ask(t, g, "GET", "/healthz").Code; got != 503 {
		t.Errorf("draining: %d, want 503", got)
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("a hang outlives the drain")
		}
	}()
	ask(t, g, "GET", "/?x-greeter-hang=true")
}

func TestHeldRequestsGoOnWhenReleased(t *testing.T) {
	g, url := start(t)
	answered := make(chan int, 3)
	get := func() {
		request, _ := http.NewRequest("GET", url+"/?x-greeter-status=201&x-greeter-hold=load-1", nil)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			answered <- 0
			return
		}
		response.Body.Close()
		answered <- response.StatusCode
	}
	go get()
	go get()
	for deadline := time.Now().Add(5 * time.Second); g.counts.snapshot().MostInHand < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("two requests were not under way at one time")
		}
	}
	if len(answered) != 0 {
		t.Fatal("a held request was answered")
	}
	ask(t, g, "POST", "/_release/another")
	if got := ask(t, g, "GET", "/_release/load-1").Code; got != 405 {
		t.Errorf("release with GET: %d, want 405", got)
	}
	if got := ask(t, g, "POST", "/_release/load-1").Code; got != 200 {
		t.Errorf("release: %d, want 200", got)
	}
	get()
	for range 3 {
		if got := <-answered; got != 201 {
			t.Errorf("released: %d, want 201", got)
		}
	}
	if g.counts.reset(); g.counts.snapshot().MostInHand != 0 {
		t.Errorf("%+v, want none under way", g.counts.snapshot())
	}
}

func TestGatesAreBounded(t *testing.T) {
	g := newGates()
	first := g.of("0")
	for i := range maxGates + 5 {
		g.of(fmt.Sprint(i))
	}
	if len(g.opened) != maxGates || len(g.names) != maxGates {
		t.Errorf("%d gates, %d names", len(g.opened), len(g.names))
	}
	select {
	case <-first:
	default:
		t.Error("a forgotten gate holds for ever")
	}
}

func TestDeafPortAnswersNothing(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	filling, err := deafen(port)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(filling)
	var timeout net.Error
	conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), 100*time.Millisecond)
	if err == nil {
		conn.Close()
	}
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("dial: %v, want a time-out", err)
	}
	if len(filling) == 0 {
		t.Error("nothing fills the queue")
	}
}
