package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestWithoutAnAddressNothingIsKeptWarm(t *testing.T) {
	if w, err := warmingOf(environment(nil)); w != nil || err != nil {
		t.Errorf("%v, %v", w, err)
	}
}

func TestAnAddressWithoutATimeBetweenIsRefused(t *testing.T) {
	for _, every := range []string{"", "60", "0s", "-1s"} {
		if _, err := warmingOf(environment(map[string]string{"KEEP_WARM_URL": "http://a", "KEEP_WARM_EVERY": every})); err == nil {
			t.Errorf("%q is taken", every)
		}
	}
}

func TestVisitsGoOnUntilTheEndAndAreWrittenDown(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	arrived := 0
	function := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if arrived++; arrived == 3 {
			cancel()
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer function.Close()
	w, err := warmingOf(environment(map[string]string{"KEEP_WARM_URL": function.URL, "KEEP_WARM_EVERY": "20ms"}))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	began := time.Now()
	w.run(ctx, &out)
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	var first visit
	if err := json.Unmarshal(lines[0], &first); err != nil || first.Status != http.StatusTeapot || first.Error != "" {
		t.Errorf("%v: %s", err, lines[0])
	}
	if len(lines) != 3 || time.Since(began) < 40*time.Millisecond {
		t.Errorf("%d visits in %v: %s", len(lines), time.Since(began), out.Bytes())
	}
}

func TestAVisitWithoutAnAnswerSaysWhy(t *testing.T) {
	function := httptest.NewServer(http.NotFoundHandler())
	function.Close()
	w := &warming{function.URL, time.Second}
	if seen := w.visit(context.Background(), http.DefaultClient); seen.Status != 0 || seen.Error == "" {
		t.Errorf("%+v", seen)
	}
}
