package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T) *issuer {
	t.Helper()
	i := newIssuer("127.0.0.1:0")
	if err := i.behave("answer"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.behave("close") })
	return i
}

func order(t *testing.T, i *issuer, method, target, body string) (int, string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	i.control().ServeHTTP(recorder, httptest.NewRequest(method, target, strings.NewReader(body)))
	return recorder.Code, recorder.Body.String()
}

func get(i *issuer, path string, within time.Duration) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, _ := http.NewRequestWithContext(ctx, "GET", "http://"+i.address+path, nil)
	request.Header.Set("User-Agent", "tester")
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

func TestADocumentIsServedAsItWasLastPut(t *testing.T) {
	i := start(t)
	for _, body := range []string{`{"keys":[]}`, `{"keys":[1]}`} {
		if status, said := order(t, i, "PUT", "/_documents/jwks", body); status != 200 {
			t.Fatal(status, said)
		}
		if status, got, err := get(i, "/jwks", time.Second); status != 200 || got != body || err != nil {
			t.Fatal(status, got, err)
		}
	}
	if status, _, _ := get(i, "/other", time.Second); status != 404 {
		t.Fatal(status)
	}
}

func TestFetchesAreCountedByWhoAsked(t *testing.T) {
	i := start(t)
	order(t, i, "PUT", "/_documents/jwks", "{}")
	get(i, "/jwks", time.Second)
	get(i, "/jwks", time.Second)
	get(i, "/x", time.Second)
	_, said := order(t, i, "GET", "/_fetches", "")
	var all []fetched
	if err := json.Unmarshal([]byte(said), &all); err != nil {
		t.Fatal(err)
	}
	want := fetched{fetch{"/jwks", "127.0.0.1", "tester"}, 2}
	if len(all) != 2 || all[0] != want || all[1].Path != "/x" {
		t.Fatal(all)
	}
	if _, said := order(t, i, "POST", "/_fetches/reset", ""); strings.TrimSpace(said) != "[]" {
		t.Fatal(said)
	}
}

func TestItFailsInTheWaysItIsTold(t *testing.T) {
	i := start(t)
	order(t, i, "PUT", "/_documents/jwks", "{}")
	order(t, i, "POST", "/_behaviour/fail", "")
	if status, _, _ := get(i, "/jwks", time.Second); status != 500 {
		t.Fatal(status)
	}
	order(t, i, "POST", "/_behaviour/hang", "")
	if _, _, err := get(i, "/jwks", 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	order(t, i, "POST", "/_behaviour/close", "")
	if _, _, err := get(i, "/jwks", time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	order(t, i, "POST", "/_behaviour/answer", "")
	if status, _, err := get(i, "/jwks", time.Second); status != 200 {
		t.Fatal(status, err)
	}
}

func TestWhatHangsEndsWhenTheBehaviourChanges(t *testing.T) {
	i := start(t)
	order(t, i, "POST", "/_behaviour/hang", "")
	ended := make(chan error, 1)
	go func() {
		_, _, err := get(i, "/jwks", 10*time.Second)
		ended <- err
	}()
	for {
		if _, said := order(t, i, "GET", "/_fetches", ""); strings.Contains(said, "/jwks") {
			break
		}
	}
	order(t, i, "POST", "/_behaviour/answer", "")
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestOrdersThatItDoesNotUnderstandAreRefused(t *testing.T) {
	i := start(t)
	for _, one := range [][3]string{{"POST", "/_behaviour/dance", ""}, {"PUT", "/_documents/jwks", "no json"}} {
		if status, _ := order(t, i, one[0], one[1], one[2]); status != 400 {
			t.Error(one, status)
		}
	}
	if status, _ := order(t, i, "GET", "/nothing", ""); status != 404 {
		t.Error(status)
	}
	if status, _ := order(t, i, "GET", "/healthz", ""); status != 200 {
		t.Error(status)
	}
}

func TestAPortThatIsTakenIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := newIssuer(taken.Addr().String()).behave("answer"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatal(err)
	}
}
