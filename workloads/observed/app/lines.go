package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	maxWriteBytes = 16 << 20
	maxEmitted    = 1_000_000
	// Lines leave in bundles: a timer for each would be late at thousands a second.
	ticksPerSecond = 100
)

// lines is standard output: one writer at a time, so that no line stands within another.
type lines struct {
	guard sync.Mutex
	out   io.Writer
}

func (l *lines) print(value any) {
	text, _ := json.Marshal(value)
	l.write(append(text, '\n'))
}

func (l *lines) write(bytes []byte) error {
	l.guard.Lock()
	defer l.guard.Unlock()
	_, err := l.out.Write(bytes)
	return err
}

// order asks for lines {"event":"line","nonce":NONCE,"n":0..,"pad":...}: `count` of them at `rate_per_s`, padded by `size` characters.
type order struct {
	Nonce    string  `json:"nonce"`
	Count    int     `json:"count"`
	RatePerS float64 `json:"rate_per_s"`
	Size     int     `json:"size"`
}

type emitted struct {
	Event string `json:"event"`
	Nonce string `json:"nonce"`
	N     int    `json:"n"`
	Pad   string `json:"pad,omitempty"`
}

// emit writes what an order asks for, in steps of a hundredth of a second, and returns when the last line is written.
func (l *lines) emit(wanted order, stop <-chan struct{}) error {
	began := time.Now()
	ticker := time.NewTicker(time.Second / ticksPerSecond)
	defer ticker.Stop()
	pad := strings.Repeat("x", wanted.Size)
	for written := 0; written < wanted.Count; {
		due := min(wanted.Count, int(time.Since(began).Seconds()*wanted.RatePerS)+1)
		var text []byte
		for ; written < due; written++ {
			one, _ := json.Marshal(emitted{"line", wanted.Nonce, written, pad})
			text = append(append(text, one...), '\n')
		}
		if err := l.write(text); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-stop:
			return errors.New("nobody waits for the answer any more")
		}
	}
	return nil
}

func (f *function) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		f.metrics.guard.Lock()
		defer f.metrics.guard.Unlock()
		answer(w, http.StatusOK, f.metrics.snapshot)
	})
	mux.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		bytes, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWriteBytes))
		if err == nil {
			err = f.lines.write(bytes)
		}
		if err != nil {
			complain(w, err)
			return
		}
		answer(w, http.StatusOK, map[string]int{"bytes": len(bytes)})
	})
	mux.HandleFunc("POST /emit", func(w http.ResponseWriter, r *http.Request) {
		var wanted order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxWriteBytes)).Decode(&wanted); err != nil {
			complain(w, err)
			return
		}
		if wanted.Nonce == "" || wanted.Count < 1 || wanted.Count > maxEmitted || wanted.RatePerS <= 0 || wanted.Size < 0 || wanted.Size > maxWriteBytes {
			complain(w, errors.New("a nonce, a count of 1 to 1000000, a rate above 0 and a size of 0 to 16777216 are wanted"))
			return
		}
		began := time.Now()
		if err := f.lines.emit(wanted, r.Context().Done()); err != nil {
			complain(w, err)
			return
		}
		answer(w, http.StatusOK, map[string]float64{"seconds": time.Since(began).Seconds()})
	})
	mux.HandleFunc("POST /scrapes", func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 64))
		switch string(text) {
		case "refused":
			f.metrics.refused.Store(true)
		case "answered":
			f.metrics.refused.Store(false)
		default:
			complain(w, errors.New(`scrapes are "refused" or "answered"`))
			return
		}
		answer(w, http.StatusOK, map[string]bool{"refused": f.metrics.refused.Load()})
	})
	return mux
}

func complain(w http.ResponseWriter, why error) {
	answer(w, http.StatusBadRequest, map[string]string{"error": why.Error()})
}
