package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// listen serves each connection with one function until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return "http://" + listener.Addr().String()
}

func drawOf(t *testing.T, text string) *drawn {
	t.Helper()
	asked, err := readOrder(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return asked.draw(context.Background())
}

func TestHeadersLeaveAsOrdered(t *testing.T) {
	heard := make(chan string, 1)
	url := listen(t, func(conn net.Conn) {
		reader := bufio.NewReader(conn)
		var text strings.Builder
		for {
			line, err := reader.ReadString('\n')
			text.WriteString(line)
			if err != nil || line == "\r\n" {
				break
			}
		}
		body := make([]byte, 3)
		io.ReadFull(reader, body)
		heard <- text.String() + string(body)
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	got := drawOf(t, `{"url":"`+url+`/api/..%2f//x?y","method":"PUT","body_base64":"YWJj","headers":
		[["User-Agent","me"],["Host","b.example"],["x-b","2"],["X-A",""],["x-b","1"],["X-Request-ID","mine"]]}`)
	want := "PUT /api/..%2f//x?y HTTP/1.1\r\nUser-Agent: me\r\nHost: b.example\r\nx-b: 2\r\nX-A: \r\nx-b: 1\r\nX-Request-ID: mine\r\ncontent-length: 3\r\n\r\nabc"
	select {
	case sent := <-heard:
		if sent != want {
			t.Errorf("sent\n%q, want\n%q", sent, want)
		}
	default:
		t.Error("nothing was sent")
	}
	if one := got.Records[0]; one.Status != 204 || one.RequestID != "mine" || one.Error != "" {
		t.Errorf("record %+v", one)
	}
}

func TestBodiesAreKeptWhereTheyAreAskedFor(t *testing.T) {
	var made atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "\x00answer %d", made.Add(1))
	}))
	defer server.Close()
	got := drawOf(t, fmt.Sprintf(`{"url":%q,"count":3,"keep_body":true}`, server.URL))
	for i, one := range got.Records {
		if want := fmt.Sprintf("\x00answer %d", i+1); string(one.Body) != want {
			t.Errorf("record %d has body %q, want %q", i, one.Body, want)
		}
	}
	if one := drawOf(t, fmt.Sprintf(`{"url":%q}`, server.URL)).Records[0]; one.Status != 200 || one.Body != nil {
		t.Errorf("record %+v has a body that nobody asked for", one)
	}
}

func TestExactCountAndUniqueIDs(t *testing.T) {
	var arrived atomic.Int64
	var ids sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		ids.Store(r.Header.Get(requestID), true)
		w.Header().Set("content-type", "application/json")
		w.Header().Set("X-Version", "v1")
		fmt.Fprintf(w, `{"headers":{"x-request-id":[%q],"other":["1"]}}`, r.Header.Get(requestID))
	}))
	defer server.Close()
	for _, fresh := range []bool{false, true} {
		arrived.Store(0)
		ids.Clear()
		got := drawOf(t, fmt.Sprintf(`{"url":%q,"count":101,"concurrency":8,"fresh_connections":%v,"keep_seen":["X-Request-Id"],"keep_headers":[]}`, server.URL, fresh))
		connections := map[string]bool{}
		for i, one := range got.Records {
			connections[one.Connection] = true
			if one.Index != i || one.Status != 200 || one.Version != "v1" || one.Seen[requestID][0] != one.RequestID || len(one.Seen) != 1 || len(one.Headers) != 0 {
				t.Fatalf("record %d: %+v", i, one)
			}
			ids.Delete(one.RequestID)
		}
		left := 0
		ids.Range(func(any, any) bool { left++; return true })
		if arrived.Load() != 101 || left != 0 {
			t.Errorf("fresh %v: %d arrived, %d ids unaccounted for", fresh, arrived.Load(), left)
		}
		if want := map[bool]int{false: 8, true: 101}[fresh]; len(connections) > want || fresh && len(connections) != want {
			t.Errorf("fresh %v: %d connections, want %d", fresh, len(connections), want)
		}
	}
}

// once answers the first request of a connection, and hands the connection over with the second request unanswered.
func once(arrived *atomic.Int64, then func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		reader := bufio.NewReader(conn)
		for n := 0; ; n++ {
			if _, err := http.ReadRequest(reader); err != nil {
				return
			}
			arrived.Add(1)
			if n == 1 {
				then(conn)
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
		}
	}
}

func TestACallIsNeverSentTwice(t *testing.T) {
	var arrived atomic.Int64
	url := listen(t, once(&arrived, func(net.Conn) {}))
	got := drawOf(t, `{"url":"`+url+`","count":4}`)
	statuses := []int{}
	for _, one := range got.Records {
		statuses = append(statuses, one.Status)
	}
	if arrived.Load() != 4 || fmt.Sprint(statuses) != "[200 0 200 0]" {
		t.Errorf("%d arrived, statuses %v", arrived.Load(), statuses)
	}
	if e := got.Records[1].Error; e != "read: closed by the other side" {
		t.Errorf("error %q", e)
	}
}

// net/http's own client is why wire.go exists; should it stop repeating requests, this test says so.
func TestNetHTTPWouldSendTwice(t *testing.T) {
	var arrived atomic.Int64
	url := listen(t, once(&arrived, func(net.Conn) {}))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 2 {
		response, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if arrived.Load() != 3 {
		t.Errorf("%d arrived for 2 calls, want 3: is wire.go still needed?", arrived.Load())
	}
}

func TestAFreshConnectionIsLeftByTheCallerItself(t *testing.T) {
	var arrived atomic.Int64
	url := listen(t, once(&arrived, func(net.Conn) {}))
	got := drawOf(t, `{"url":"`+url+`","count":2,"fresh_connections":true,"headers":[["connection","keep-alive"]]}`)
	if one, two := got.Records[0], got.Records[1]; one.Status != 200 || two.Status != 200 || one.Connection == two.Connection {
		t.Errorf("%+v", got.Records)
	}
}

func TestAConnectionClosedWhileIdleIsReplacedUnwritten(t *testing.T) {
	var arrived atomic.Int64
	url := listen(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			arrived.Add(1)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
		}
	})
	got := drawOf(t, `{"url":"`+url+`","count":2,"rate_per_s":20}`)
	if arrived.Load() != 2 || got.Records[0].Status != 200 || got.Records[1].Status != 200 {
		t.Errorf("%d arrived: %+v", arrived.Load(), got.Records)
	}
}

func TestPhaseAndCauseOfAFailure(t *testing.T) {
	reset := listen(t, func(conn net.Conn) {
		http.ReadRequest(bufio.NewReader(conn))
		conn.(*net.TCPConn).SetLinger(0)
	})
	silent := listen(t, func(conn net.Conn) { time.Sleep(time.Second) })
	cut := listen(t, func(conn net.Conn) {
		http.ReadRequest(bufio.NewReader(conn))
		io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
	})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for url, want := range map[string]string{
		reset:                            "read: connection reset by peer",
		silent:                           "read: timeout",
		cut:                              "body of a 200: closed by the other side",
		"http://" + gone.Addr().String(): "connect: connection refused",
	} {
		one := drawOf(t, `{"url":"`+url+`","timeout_ms":50}`).Records[0]
		if one.Error != want || one.Status != 0 {
			t.Errorf("%d %q, want 0 %q", one.Status, one.Error, want)
		}
	}
}

func TestAPacedDrawKeepsItsRate(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	got := drawOf(t, fmt.Sprintf(`{"url":%q,"count":5,"concurrency":2,"rate_per_s":100}`, server.URL))
	for i, one := range got.Records {
		if one.StartedMS < float64(10*i) {
			t.Errorf("call %d began after %v ms, want %d or later", i, one.StartedMS, 10*i)
		}
	}
}

func TestAnOrderIsUnderstoodOrRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"url":"http://a","coutn":5}`:                     "coutn",
		`{"url":"ftp://a"}`:                                "http[s]://host",
		`{"url":"http://"}`:                                "http[s]://host",
		`{"url":"http://a:x/"}`:                            "port",
		`{"url":"http://a","count":200001}`:                "200000",
		`{"url":"http://a","count":-1}`:                    "count",
		`{"url":"http://a","concurrency":1001}`:            "1000",
		`{"url":"http://a","rate_per_s":-1}`:               "rate_per_s",
		`{"url":"http://a","count":20001}`:                 "keep_headers",
		`{"url":"http://a","headers":[["a b","c"]]}`:       "cannot be sent",
		`{"url":"http://a","headers":[["a","c\r\nx: y"]]}`: "cannot be sent",
		`{"url":"http://a","path":"/a b"}`:                 "space",
		`{"url":"http://a","method":"GE T"}`:               "token",
		`{"url":"http://a","body_base64":"*"}`:             "base64",
		`{"url":"http://a"} {}`:                            "followed",
		`[]`:                                               "not understood",
	} {
		if _, err := readOrder(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", text, err, want)
		}
	}
}

func TestARepeatedOrderIsNotDrawnAgain(t *testing.T) {
	var arrived atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer target.Close()
	c := newControl()
	post := func(id string) *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		body := fmt.Sprintf(`{"url":%q,"id":%q,"count":3}`, target.URL, id)
		c.ServeHTTP(recorder, httptest.NewRequest("POST", "/draw", bytes.NewBufferString(body)))
		return recorder
	}
	first := post("a")
	var answered struct {
		Count   int
		Records []record
	}
	if err := json.Unmarshal(first.Body.Bytes(), &answered); err != nil || answered.Count != 3 || len(answered.Records) != 3 {
		t.Errorf("%v: %s", err, first.Body)
	}
	if again := post("a").Code; again != 409 || arrived.Load() != 3 {
		t.Errorf("repeated: %d, %d arrived", again, arrived.Load())
	}
	if other := post("b").Code; other != 200 {
		t.Errorf("another id: %d", other)
	}
}

func TestADrawStopsWhenItsClientGoesAway(t *testing.T) {
	var arrived atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	url := listen(t, func(conn net.Conn) {
		http.ReadRequest(bufio.NewReader(conn))
		arrived.Add(1)
		cancel()
		time.Sleep(time.Second)
	})
	asked, err := readOrder(strings.NewReader(`{"url":"` + url + `","count":100}`))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	asked.draw(ctx)
	if arrived.Load() != 1 || time.Since(began) > 500*time.Millisecond {
		t.Errorf("%d arrived in %v", arrived.Load(), time.Since(began))
	}
}
