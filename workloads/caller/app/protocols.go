package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	http1 = "http/1.1"
	http2 = "h2"
	grpc2 = "grpc"
	// greetingKey is the metadata under which a function says over gRPC what it says in its body over HTTP.
	greetingKey = "x-greeting-bin"
)

// httpOf says a gRPC status as the HTTP status that Envoy turns into it when it answers a gRPC call itself (Envoy documentation,
// "gRPC HTTP/1.1 bridge" and source/common/grpc/status.cc name the pairs), so that one expectation fits every protocol.
var httpOf = map[codes.Code]int{
	codes.OK: http.StatusOK, codes.PermissionDenied: http.StatusForbidden, codes.Unauthenticated: http.StatusUnauthorized,
	codes.Unimplemented: http.StatusNotFound, codes.Unavailable: http.StatusServiceUnavailable, codes.Internal: http.StatusBadRequest,
}

// multiplexed makes calls over HTTP/2, bare or as gRPC, each with the libraries at home there: unlike over HTTP/1.1, names are
// lower-case by definition and nothing about a request's bytes is left for a check to order.
type multiplexed struct {
	order     *order
	local     string
	transport *http.Transport
	client    *grpc.ClientConn
}

func (m *multiplexed) dial(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, phase("connect", err)
		}
		m.local = conn.LocalAddr().String()
		return conn, nil
	}
}

func (m *multiplexed) close() {
	if m.transport != nil {
		m.transport.CloseIdleConnections()
		m.transport = nil
	}
	if m.client != nil {
		m.client.Close()
		m.client = nil
	}
}

// call makes one call to address and closes the connection after it where each call wants its own.
func (m *multiplexed) call(ctx context.Context, address string, into *record) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, m.order.timeout())
	defer cancel()
	if m.order.FreshConnections {
		defer m.close()
	}
	made := m.overHTTP2
	if m.order.Protocol == grpc2 {
		made = m.overGRPC
	}
	got, err := made(ctx, address, into.RequestID)
	into.Connection = m.local
	var said *failure
	switch {
	case errors.As(err, &said):
		return answer{}, said
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return answer{}, &failure{"read", "timeout"}
	case err != nil:
		return answer{}, phase("read", err)
	}
	return got, nil
}

func (m *multiplexed) overHTTP2(ctx context.Context, address, id string) (answer, error) {
	if m.transport == nil {
		m.transport = &http.Transport{Protocols: new(http.Protocols), DialContext: m.dial(address), DisableCompression: true}
		m.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	// RawPath leaves as it is: net/http would clean nothing, but url.Parse refuses what a check may want to send.
	path, query, _ := strings.Cut(m.order.target, "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		return answer{}, &failure{"write", err.Error()}
	}
	request := (&http.Request{
		Method: m.order.Method, URL: &url.URL{Scheme: "http", Host: m.order.authority, Path: plain, RawPath: path, RawQuery: query},
		Host: m.order.authority, Header: http.Header{"User-Agent": {userAgent}},
	}).WithContext(ctx)
	if len(m.order.body) > 0 {
		request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(m.order.body)), int64(len(m.order.body))
	}
	request.Header.Set(requestID, id)
	for _, header := range m.order.Headers {
		if strings.EqualFold(header[0], "host") {
			request.Host = header[1]
		} else if !strings.EqualFold(header[0], requestID) {
			request.Header[header[0]] = append(request.Header[header[0]], header[1])
		}
	}
	response, err := m.transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxLookedInto))
	if err != nil {
		return answer{}, phase(fmt.Sprintf("body of a %d", response.StatusCode), err)
	}
	return answer{status: response.StatusCode, headers: response.Header, body: body, keep: true}, nil
}

// overGRPC calls the method that the target names, with the messages of the standard health service.
func (m *multiplexed) overGRPC(ctx context.Context, address, id string) (answer, error) {
	authority, sent := m.order.authority, metadata.Pairs(requestID, id)
	for _, header := range m.order.Headers {
		if strings.EqualFold(header[0], "host") {
			authority = header[1]
		} else if !strings.EqualFold(header[0], requestID) {
			sent.Append(header[0], header[1])
		}
	}
	if m.client == nil {
		dial := m.dial(address)
		client, err := grpc.NewClient(
			"passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority), grpc.WithDisableRetry(),
			grpc.WithUserAgent(userAgent), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "", "") }),
		)
		if err != nil {
			return answer{}, phase("connect", err)
		}
		m.client = client
	}
	var headers, trailers metadata.MD
	var health grpc_health_v1.HealthCheckResponse
	err := m.client.Invoke(
		metadata.NewOutgoingContext(ctx, sent), m.order.target, &grpc_health_v1.HealthCheckRequest{}, &health, grpc.Header(&headers), grpc.Trailer(&trailers),
	)
	code := status.Code(err)
	// Without a header or a trailer nobody has answered: the status is then the library's own word for a lost connection.
	if err != nil && len(headers)+len(trailers) == 0 {
		if code == codes.DeadlineExceeded {
			return answer{}, &failure{"read", "timeout"}
		}
		return answer{}, &failure{"read", status.Convert(err).Message()}
	}
	got := answer{status: httpOf[code], headers: http.Header{"Grpc-Status": {fmt.Sprint(int(code))}}, keep: true}
	if got.status == 0 {
		got.status = http.StatusInternalServerError
	}
	for name, values := range metadata.Join(headers, trailers) {
		if name == greetingKey {
			got.body = []byte(values[0])
		} else if name != "content-type" {
			got.headers[http.CanonicalHeaderKey(name)] = values
		}
	}
	if got.body != nil {
		got.headers.Set("content-type", "application/json")
	}
	return got, nil
}

func (o *order) checkProtocol() error {
	switch o.Protocol {
	case http1, http2, grpc2:
		return nil
	}
	return fmt.Errorf("protocol is %q, expected %s, %s or %s", o.Protocol, http1, http2, grpc2)
}
