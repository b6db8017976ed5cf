package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// record is one call. Its fields are those of CallRecord in workloads/records.py.
type record struct {
	Index      int                 `json:"index"`
	Status     int                 `json:"status"`
	Error      string              `json:"error"`
	LatencyMS  float64             `json:"latency_ms"`
	StartedMS  float64             `json:"started_ms"`
	Version    string              `json:"version"`
	Pod        string              `json:"pod"`
	RequestID  string              `json:"request_id"`
	Headers    map[string][]string `json:"headers"`
	Seen       map[string][]string `json:"seen"`
	Connection string              `json:"connection"`
	Body       []byte              `json:"body,omitempty"` // in JSON as base64; where the order asks for it
}

// drawn is the answer to POST /draw.
type drawn struct {
	URL         string   `json:"url"`
	Method      string   `json:"method"`
	Count       int      `json:"count"`
	Concurrency int      `json:"concurrency"`
	Began       string   `json:"began"`
	Seconds     float64  `json:"seconds"`
	Records     []record `json:"-"`
}

// write streams the records: encoding/json would hold the whole text a second time.
func (d *drawn) write(out *bufio.Writer) error {
	head, err := json.Marshal(d)
	if err != nil {
		return err
	}
	out.Write(head[:len(head)-1])
	out.WriteString(`,"records":[`)
	for i := range d.Records {
		if i > 0 {
			out.WriteByte(',')
		}
		text, err := json.Marshal(&d.Records[i])
		if err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	_, err = out.WriteString("]}\n")
	return err
}

// draw makes the calls: each index once, whatever becomes of it.
func (o *order) draw(ctx context.Context) *drawn {
	made := &drawn{URL: o.URL, Method: o.Method, Count: o.Count, Concurrency: o.Concurrency, Records: make([]record, o.Count)}
	addresses, unresolved := resolve(ctx, o.address, o.timeout())
	began := time.Now()
	made.Began = began.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	var next atomic.Int64
	var workers sync.WaitGroup
	for number := range min(o.Concurrency, o.Count) {
		w := &worker{order: o, ctx: ctx, began: began, unresolved: unresolved}
		if unresolved == nil {
			w.address = addresses[number%len(addresses)]
		}
		workers.Go(func() {
			defer w.hangUp()
			for {
				index := int(next.Add(1)) - 1
				if index >= o.Count || !w.waitFor(index) {
					return
				}
				w.call(index, &made.Records[index])
			}
		})
	}
	workers.Wait()
	made.Seconds = time.Since(began).Seconds()
	return made
}

// resolve asks once per draw: a lookup per call would measure the cluster's DNS, and load it.
func resolve(ctx context.Context, address string, within time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, phase("resolve", err)
	}
	hosts, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, phase("resolve", err)
	}
	addresses := make([]string, len(hosts))
	for i, host := range hosts {
		addresses[i] = net.JoinHostPort(host, port)
	}
	return addresses, nil
}

// worker is one of the concurrent callers; it has at most one call under way and one connection.
type worker struct {
	order      *order
	ctx        context.Context
	began      time.Time
	address    string
	unresolved error
	line       *line
	release    func() bool
	buffer     bytes.Buffer

	multiplexed *multiplexed
}

// waitFor holds until a call of a paced draw is due; it says false when the draw was given up.
func (w *worker) waitFor(index int) bool {
	if w.order.RatePerS > 0 {
		due := w.began.Add(time.Duration(float64(index) / w.order.RatePerS * float64(time.Second)))
		timer := time.NewTimer(time.Until(due))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-w.ctx.Done():
		}
	}
	return w.ctx.Err() == nil
}

func (w *worker) call(index int, into *record) {
	request := &w.order.sent
	into.Index, into.RequestID = index, request.id
	if request.ownID {
		into.RequestID = newID()
	}
	started := time.Now()
	into.StartedMS = milliseconds(started.Sub(w.began))
	got, err := w.attempt(into)
	into.LatencyMS = milliseconds(time.Since(started))
	into.Headers, into.Seen = map[string][]string{}, map[string][]string{}
	if err != nil {
		into.Error = err.Error()
		w.hangUp()
		return
	}
	into.Status = got.status
	into.Version, into.Pod = got.headers.Get("x-version"), got.headers.Get("x-pod")
	into.Headers = chosen(got.headers, w.order.KeepHeaders)
	if w.order.KeepBody {
		// The buffer is the next call's.
		into.Body = bytes.Clone(got.body)
	}
	if strings.HasPrefix(got.headers.Get("content-type"), "application/json") {
		var echo struct{ Headers map[string][]string }
		// Something other than a greeter may answer in JSON of another shape; then nothing is known of what was seen.
		if json.Unmarshal(got.body, &echo) == nil && echo.Headers != nil {
			into.Seen = chosen(echo.Headers, w.order.KeepSeen)
		}
	}
	if !got.keep {
		w.hangUp()
	}
}

func (w *worker) attempt(into *record) (answer, error) {
	if w.unresolved != nil {
		return answer{}, w.unresolved
	}
	if w.order.Protocol != http1 {
		if w.multiplexed == nil {
			w.multiplexed = &multiplexed{order: w.order}
		}
		return w.multiplexed.call(w.ctx, w.address, into)
	}
	if w.line != nil && !w.line.usable() {
		w.hangUp()
	}
	deadline := time.Now().Add(w.order.timeout())
	if w.line == nil {
		dialer := net.Dialer{Deadline: deadline}
		conn, err := dialer.DialContext(w.ctx, "tcp", w.address)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return answer{}, &failure{"connect", "timeout"}
			}
			return answer{}, phase("connect", err)
		}
		if conn, err = w.order.secured(w.ctx, conn, deadline); err != nil {
			return answer{}, err
		}
		w.line = newLine(conn)
		w.release = context.AfterFunc(w.ctx, func() { conn.Close() })
	}
	into.Connection = w.line.local
	w.line.conn.SetDeadline(deadline)
	return w.line.exchange(w.order.Method, &w.order.sent, into.RequestID, &w.buffer)
}

func (w *worker) hangUp() {
	if w.multiplexed != nil {
		w.multiplexed.close()
	}
	if w.line != nil {
		w.release()
		w.line.conn.Close()
		w.line = nil
	}
}

// chosen lower-cases names: HTTP/2 has no others, and evidence should not depend on the protocol.
func chosen(headers map[string][]string, keep *[]string) map[string][]string {
	kept := make(map[string][]string, len(headers))
	for name, values := range headers {
		name = strings.ToLower(name)
		if keep == nil || wanted(*keep, name) {
			kept[name] = values
		}
	}
	return kept
}

func wanted(names []string, name string) bool {
	for _, one := range names {
		if strings.EqualFold(one, name) {
			return true
		}
	}
	return false
}

// milliseconds keeps microseconds: more digits are noise that every evidence file would carry.
func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
