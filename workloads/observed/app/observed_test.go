package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// chain serves three functions, each calling the next, and returns the first one's url and all three.
func chain(t *testing.T) (string, []*function) {
	t.Helper()
	var calls []string
	functions := make([]*function, 3)
	for index, name := range []string{"third", "second", "first"} {
		one := newFunction(name, name+"-pod", calls, io.Discard)
		server := httptest.NewServer(one)
		t.Cleanup(server.Close)
		functions[2-index], calls = one, []string{server.URL + "/next"}
	}
	return strings.TrimSuffix(calls[0], "/next"), functions
}

func get(t *testing.T, url string, headers map[string]string) (int, said) {
	t.Helper()
	request, _ := http.NewRequest(http.MethodGet, url, nil)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body said
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func TestTheContextIsHandedOnToTheLastFunction(t *testing.T) {
	url, _ := chain(t)
	sent := map[string]string{
		"x-request-id": "one", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b", "baggage": "c=d",
		"b3": "e", "x-b3-traceid": "f", "x-b3-spanid": "g", "x-b3-parentspanid": "h", "x-b3-sampled": "1", "x-b3-flags": "0", "x-ot-span-context": "i",
	}
	status, body := get(t, url, sent)
	for range 2 {
		var next said
		if err := json.Unmarshal(body.Calls[0].Answer, &next); err != nil {
			t.Fatal(err)
		}
		body = next
	}
	if status != http.StatusOK || body.Function != "third" {
		t.Fatalf("status %d from %s", status, body.Function)
	}
	for name, value := range sent {
		if seen := body.Headers[name]; len(seen) != 1 || seen[0] != value {
			t.Errorf("%s: %q arrived as %q", name, value, seen)
		}
	}
}

func TestAFunctionFailsWhereItIsAskedToAndItsCallersSayThatItDid(t *testing.T) {
	url, functions := chain(t)
	for _, one := range []struct {
		name     string
		headers  map[string]string
		statuses []int // first, second; 0 where it is not asked
	}{
		{"the second", map[string]string{askStatus: "second=500"}, []int{502, 500}},
		{"the second, with a client's error", map[string]string{askStatus: "second=404"}, []int{200, 404}},
		{"the first", map[string]string{askStatus: "third=200,first=503"}, []int{503, 0}},
		{"a first try", map[string]string{askFailures: "second=1"}, []int{502, 503}},
		{"a try beyond", map[string]string{askFailures: "first=1", attempt: "2"}, []int{200, 200}},
		{"nobody", map[string]string{askStatus: "fourth=500", askDelay: "third=1"}, []int{200, 200}},
		{"a number that is none", map[string]string{askStatus: "first=many"}, []int{400, 0}},
	} {
		status, body := get(t, url, one.headers)
		second := 0
		if len(body.Calls) > 0 {
			second = body.Calls[0].Status
		}
		if status != one.statuses[0] || second != one.statuses[1] {
			t.Errorf("%s: answered %d and %d, wanted %v", one.name, status, second, one.statuses)
		}
	}
	if counted := functions[0].metrics.snapshot; counted.Invocations != 7 || counted.Errors != 3 {
		t.Errorf("the first counted %+v", counted)
	}
}

func TestMetricsAndCountsSayTheSameAndExemplarsNameTheRequest(t *testing.T) {
	f := newFunction("one", "pod", nil, io.Discard)
	server := httptest.NewServer(f)
	defer server.Close()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	get(t, server.URL, map[string]string{"x-request-id": "fine"})
	get(t, server.URL, map[string]string{"x-request-id": "broken", askStatus: "one=500", "traceparent": "00-" + trace + "-b7ad6b7169203331-01"})

	metrics := httptest.NewServer(f.metrics.handler())
	defer metrics.Close()
	request, _ := http.NewRequest(http.MethodGet, metrics.URL+"/metrics", nil)
	request.Header.Set("accept", "application/openmetrics-text; version=1.0.0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	for _, wanted := range []string{
		`serverless_function_invocations_total{function="one"} 2.0 # {`,
		`serverless_function_errors_total{function="one"} 1.0 # {`,
		`request_id="broken"`,
		`trace_id="` + trace + `"`,
	} {
		if !strings.Contains(string(text), wanted) {
			t.Errorf("no %s in\n%s", wanted, text)
		}
	}
	if counted := f.metrics.snapshot; counted.Invocations != 2 || counted.Errors != 1 || counted.ByRequestID["broken"] != 1 {
		t.Errorf("counted %+v", counted)
	}
}

func TestAnIdThatNoExemplarMayHoldIsCountedAllTheSame(t *testing.T) {
	m := newMetrics("one")
	m.count(http.StatusOK, strings.Repeat("x", 500), strings.Repeat("y", 500))
	if m.snapshot.Invocations != 1 {
		t.Errorf("counted %+v", m.snapshot)
	}
}

func TestALineTellsWhatWasAnswered(t *testing.T) {
	var out bytes.Buffer
	server := httptest.NewServer(newFunction("one", "pod", nil, &out))
	defer server.Close()
	get(t, server.URL+"/path", map[string]string{"x-request-id": "id", "b3": "0af7-1-1", askStatus: "one=503"})
	var written line
	if err := json.Unmarshal(out.Bytes(), &written); err != nil {
		t.Fatal(err)
	}
	if wanted := (line{"request", "id", "0af7", "one", "pod", "GET", "/path", 503}); written != wanted {
		t.Errorf("wrote %+v", written)
	}
}

func TestControl(t *testing.T) {
	var out bytes.Buffer
	f := newFunction("one", "pod", nil, &out)
	control := httptest.NewServer(f.control())
	defer control.Close()
	post := func(path, body string) int {
		response, err := http.Post(control.URL+path, "", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}

	if status := post("/write", "\xff\xfe no text\n"); status != http.StatusOK || out.String() != "\xff\xfe no text\n" {
		t.Errorf("write: %d, %q", status, out.String())
	}
	out.Reset()
	if status := post("/emit", `{"nonce":"n","count":250,"rate_per_s":10000,"size":3}`); status != http.StatusOK {
		t.Errorf("emit: %d", status)
	}
	written := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(written) != 250 || written[0] != `{"event":"line","nonce":"n","n":0,"pad":"xxx"}` || !strings.Contains(written[249], `"n":249`) {
		t.Errorf("emit: %d lines, the first %s", len(written), written[0])
	}
	for _, wrong := range []string{``, `{}`, `{"nonce":"n","count":0,"rate_per_s":1}`, `{"nonce":"n","count":1,"rate_per_s":0}`} {
		if status := post("/emit", wrong); status != http.StatusBadRequest {
			t.Errorf("emit %q: %d", wrong, status)
		}
	}

	metrics := httptest.NewServer(f.metrics.handler())
	defer metrics.Close()
	for _, one := range []struct {
		said            string
		answer, scraped int
	}{{"refused", 200, 503}, {"maybe", 400, 503}, {"answered", 200, 200}} {
		if status := post("/scrapes", one.said); status != one.answer {
			t.Errorf("scrapes %s: %d", one.said, status)
		}
		response, err := http.Get(metrics.URL + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != one.scraped {
			t.Errorf("after %s a scrape is answered %d", one.said, response.StatusCode)
		}
	}
}
