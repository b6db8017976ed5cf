package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// clientTLS says how a client without a sidecar behaves as a TLS client. Its zero value presents no certificate and takes any server's:
// what is under test is the server's verdict about the client.
//
// Istio's sidecar of a server chooses its filter chain by the ALPN protocols that are offered (pilot, core/filterchain_options.go). Under
// PERMISSIVE, for a port of HTTP, "istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1" or "istio-h2" mean mutual TLS, and a
// TLS connection that offers none of them finds no chain and is closed; under STRICT every TLS connection is mutual, whatever it offers.
// The server's answer is never one of these, but h2, http/1.1 or none at all. Sidecars as clients offer "istio" here (and "h2" where the
// upstream takes HTTP/2).
type clientTLS struct {
	CertificatePEM string   `json:"certificate_pem"` // the leaf, then what leads to the root; none without it
	KeyPEM         string   `json:"key_pem"`         // the leaf's
	CAPEM          string   `json:"ca_pem"`          // roots that the server's chain must lead to; without it any server is taken
	ServerName     string   `json:"server_name"`     // sent as SNI; it is not compared with the server's certificate, which names a SPIFFE id
	ALPN           []string `json:"alpn"`            // none

	config *tls.Config
}

func (t *clientTLS) prepare() error {
	t.config = &tls.Config{
		ServerName: t.ServerName,
		NextProtos: t.ALPN,
		// The name is not verified; the chain is, below, when roots are given.
		InsecureSkipVerify: true,
		// A resumed session would spare the server a look at the certificate that a call is meant to show.
		SessionTicketsDisabled: true,
	}
	if t.CertificatePEM != "" || t.KeyPEM != "" {
		own, err := tls.X509KeyPair([]byte(t.CertificatePEM), []byte(t.KeyPEM))
		if err != nil {
			return fmt.Errorf("the certificate and key of tls: %w", err)
		}
		// Presented whatever authorities the server names: Certificates would be left out where none of them has signed it.
		t.config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	if t.CAPEM != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(t.CAPEM)) {
			return errors.New("ca_pem of tls holds no certificate")
		}
		t.config.VerifyConnection = func(state tls.ConnectionState) error { return leadsTo(roots, state.PeerCertificates) }
	}
	return nil
}

func leadsTo(roots *x509.CertPool, chain []*x509.Certificate) error {
	between := x509.NewCertPool()
	for _, one := range chain[1:] {
		between.AddCert(one)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}

// secured makes the handshake where the order's url asks for TLS. In TLS 1.3 a server that refuses the client's certificate says so only
// after the client has finished: the alert is then what the first reading finds, and phase says "tls" of it there too.
func (o *order) secured(ctx context.Context, conn net.Conn, deadline time.Time) (net.Conn, error) {
	if o.TLS == nil {
		return conn, nil
	}
	conn.SetDeadline(deadline)
	over := tls.Client(conn, o.TLS.config)
	if err := over.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, phase("tls", err)
	}
	return over, nil
}

// prepareTLS completes an order: an https url means TLS, with or without more said about it.
func (o *order) prepareTLS() error {
	if o.secure() && o.TLS == nil {
		o.TLS = &clientTLS{}
	}
	if !o.secure() && o.TLS != nil {
		return fmt.Errorf("url is %q and tls is given, expected https://", o.URL)
	}
	if o.TLS == nil {
		return nil
	}
	if o.Protocol != http1 {
		return fmt.Errorf("url is %q with protocol %s, expected %s over TLS", o.URL, o.Protocol, http1)
	}
	return o.TLS.prepare()
}

func (o *order) secure() bool { return strings.HasPrefix(o.URL, "https://") }

// alerted says what a peer's TLS alert was, if that is what an error is about.
func alerted(err error) (string, bool) {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return op.Error(), true
	}
	return "", false
}

// beneath is the TCP connection itself.
func beneath(conn net.Conn) net.Conn {
	if over, ok := conn.(*tls.Conn); ok {
		return over.NetConn()
	}
	return conn
}
