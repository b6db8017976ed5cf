package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// greetingKey is the metadata under which a gRPC caller finds what others find in the body.
const greetingKey = "x-greeting-bin"

// isGRPC tells a gRPC call from other requests on the same port.
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("content-type"), "application/grpc")
}

// newGRPC serves the standard health service; calls of any other method are counted as well, and answered UNIMPLEMENTED.
func (g *greeter) newGRPC() *grpc.Server {
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, request any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			defer g.greetGRPC(ctx, call.FullMethod)()
			return next(ctx, request)
		}),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			defer g.greetGRPC(stream.Context(), method)()
			return status.Errorf(codes.Unimplemented, "the function has no method %s", method)
		}),
	)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server
}

func (g *greeter) greetGRPC(ctx context.Context, method string) (done func()) {
	seen, _ := metadata.FromIncomingContext(ctx)
	id := strings.Join(seen.Get("x-request-id"), "")
	count, _ := g.counts.request(method, id, connectionOf(ctx))
	g.log(id, http.MethodPost, method)
	host := strings.Join(seen.Get(":authority"), "")
	headers := map[string][]string{"host": {host}}
	for name, values := range seen {
		if !strings.HasPrefix(name, ":") {
			headers[name] = values
		}
	}
	said, _ := json.Marshal(greeting{
		Version: g.version, Pod: g.pod, Path: method, Method: http.MethodPost, Protocol: "HTTP/2.0", Host: host, Headers: headers, Count: count, RequestID: id,
	})
	grpc.SetHeader(ctx, metadata.Pairs("x-version", g.version, "x-pod", g.pod, "x-request-id", id, greetingKey, string(said)))
	return g.counts.ended
}
