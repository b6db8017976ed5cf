package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
)

const (
	requestID = "x-request-id"
	userAgent = "faasmesh-caller"
	// A function's answer is a few kilobytes; what is longer is read and counted as answered, but not looked into.
	maxLookedInto = 1 << 20
)

// preparedRequest is the request as bytes, so that headers leave exactly as ordered. net/http's client sorts header names,
// changes their case, and sends an idempotent request a second time when a kept connection turns out to be closed; each of
// the three would make a draw other than the declared one.
type preparedRequest struct {
	before   []byte // up to the value of x-request-id
	after    []byte // from there to the end of the body
	ownID    bool   // the caller makes an id for each call
	id       string // else the id that the order's headers give
	askClose bool
}

func prepareRequest(o *order, authority, target string) (preparedRequest, error) {
	if !token(o.Method) {
		return preparedRequest{}, fmt.Errorf("method %q is not a token", o.Method)
	}
	if target == "" || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return preparedRequest{}, fmt.Errorf("path %q holds a space or a control character", target)
	}
	if len(o.Headers) > maxHeaders {
		return preparedRequest{}, fmt.Errorf("%d headers, expected at most %d", len(o.Headers), maxHeaders)
	}
	given := map[string]string{}
	total := 0
	for _, header := range o.Headers {
		name, value := header[0], header[1]
		if !token(name) || strings.ContainsAny(value, "\r\n\x00") {
			return preparedRequest{}, fmt.Errorf("header %q: %q cannot be sent", name, value)
		}
		if _, known := given[strings.ToLower(name)]; !known {
			given[strings.ToLower(name)] = value
		}
		total += len(name) + len(value)
	}
	if total > maxHeaderBytes {
		return preparedRequest{}, fmt.Errorf("headers of %d bytes, expected at most %d", total, maxHeaderBytes)
	}
	has := func(name string) bool { _, ok := given[name]; return ok }

	request := preparedRequest{ownID: !has(requestID), id: given[requestID], askClose: o.FreshConnections}
	var before, after bytes.Buffer
	fmt.Fprintf(&before, "%s %s HTTP/1.1\r\n", o.Method, target)
	if !has("host") {
		fmt.Fprintf(&before, "host: %s\r\n", authority)
	}
	if !has("user-agent") {
		fmt.Fprintf(&before, "user-agent: %s\r\n", userAgent)
	}
	if o.FreshConnections && !has("connection") {
		before.WriteString("connection: close\r\n")
	}
	if request.ownID {
		before.WriteString(requestID + ": ")
		after.WriteString("\r\n")
	}
	for _, header := range o.Headers {
		fmt.Fprintf(&after, "%s: %s\r\n", header[0], header[1])
	}
	if !has("content-length") && !has("transfer-encoding") && (len(o.body) > 0 || o.Method == "POST" || o.Method == "PUT" || o.Method == "PATCH") {
		fmt.Fprintf(&after, "content-length: %s\r\n", strconv.Itoa(len(o.body)))
	}
	after.WriteString("\r\n")
	after.Write(o.body)
	request.before, request.after = before.Bytes(), after.Bytes()
	return request, nil
}

// line is one kept connection of one of the concurrent callers.
type line struct {
	conn   net.Conn
	reader *bufio.Reader
	local  string
}

func newLine(conn net.Conn) *line {
	return &line{conn: conn, reader: bufio.NewReader(conn), local: conn.LocalAddr().String()}
}

// usable says whether the other side still holds the connection. It is asked before anything is written, so taking a new
// connection instead cannot make the function see the call twice.
func (l *line) usable() bool {
	if l.reader.Buffered() > 0 {
		return false
	}
	holder, ok := beneath(l.conn).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := holder.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = err == syscall.EAGAIN
		return true
	})
	return err == nil && open
}

// answer is what came back, or where and why nothing did.
type answer struct {
	status  int
	headers http.Header
	body    []byte // nil when longer than maxLookedInto
	keep    bool   // the connection can carry another call
}

// exchange writes one request and reads one answer. It never writes a second time.
func (l *line) exchange(method string, request *preparedRequest, id string, buffer *bytes.Buffer) (answer, error) {
	buffer.Reset()
	buffer.Write(request.before)
	if request.ownID {
		buffer.WriteString(id)
	}
	buffer.Write(request.after)
	_, writeErr := l.conn.Write(buffer.Bytes())
	// A server may refuse and close before it has read a long body: its answer counts, the broken write does not.
	response, err := l.read(method)
	if err != nil {
		// An alert says more than the write that it broke.
		if _, refused := alerted(err); writeErr != nil && !refused {
			return answer{}, phase("write", writeErr)
		}
		return answer{}, phase("read", err)
	}
	defer response.Body.Close()
	buffer.Reset()
	n, err := io.Copy(buffer, io.LimitReader(response.Body, maxLookedInto+1))
	if err == nil && n > maxLookedInto {
		_, err = io.Copy(io.Discard, response.Body)
	}
	if err != nil {
		return answer{}, phase(fmt.Sprintf("body of a %d", response.StatusCode), err)
	}
	got := answer{status: response.StatusCode, headers: response.Header, keep: writeErr == nil && !response.Close && !request.askClose}
	if n <= maxLookedInto {
		got.body = buffer.Bytes()
	}
	return got, nil
}

func (l *line) read(method string) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(l.reader, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
	}
}

func token(s string) bool {
	const others = "!#$%&'*+-.^_`|~"
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(others, r)) {
			return false
		}
	}
	return s != ""
}

// newID is a random UUID (version 4): Envoy keeps its own marks only in ids of that shape.
func newID() string {
	var raw [16]byte
	rand.Read(raw[:])
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], raw[:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:], raw[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
