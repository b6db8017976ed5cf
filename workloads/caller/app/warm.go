package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// A cold function may take this long; what waits longer is given up, or a function that never starts would end the visits.
const longestVisit = 30 * time.Second

// warming is what keeps a function warm: one address, visited again and again.
type warming struct {
	url   string
	every time.Duration
}

// visit is the line that is written of each.
type visit struct {
	At        time.Time `json:"at"`
	Status    int       `json:"status"` // 0 when there was no answer
	Error     string    `json:"error,omitempty"`
	LatencyMS float64   `json:"latency_ms"`
}

// warmingOf reads KEEP_WARM_URL and KEEP_WARM_EVERY; without an address there is nothing to keep warm.
func warmingOf(environment func(string) string) (*warming, error) {
	url := environment("KEEP_WARM_URL")
	if url == "" {
		return nil, nil
	}
	every, err := time.ParseDuration(environment("KEEP_WARM_EVERY"))
	if err != nil || every <= 0 {
		return nil, fmt.Errorf("KEEP_WARM_EVERY is %q, expected a time such as 60s", environment("KEEP_WARM_EVERY"))
	}
	return &warming{url, every}, nil
}

// run visits until ctx ends. As in a shell's loop of curl and sleep, the time between passes from the answer on, and every visit has
// a connection of its own.
func (w *warming) run(ctx context.Context, out io.Writer) {
	client := &http.Client{Timeout: longestVisit, Transport: &http.Transport{DisableKeepAlives: true}}
	lines := json.NewEncoder(out)
	for {
		lines.Encode(w.visit(ctx, client))
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.every):
		}
	}
}

func (w *warming) visit(ctx context.Context, client *http.Client) visit {
	seen := visit{At: time.Now().UTC()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err == nil {
		var response *http.Response
		if response, err = client.Do(request); err == nil {
			seen.Status = response.StatusCode
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}
	if err != nil {
		seen.Error = err.Error()
	}
	seen.LatencyMS = float64(time.Since(seen.At).Microseconds()) / 1000
	return seen
}

func startWarming(ctx context.Context) error {
	w, err := warmingOf(os.Getenv)
	if w != nil {
		go w.run(ctx, os.Stdout)
	}
	return err
}
