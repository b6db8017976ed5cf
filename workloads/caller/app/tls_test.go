package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// identity is a certificate with its key, and the authority's own when it is one.
type identity struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issued is signed by an authority, or by itself when that is nil; it ends after `lasting`.
func issued(t *testing.T, by *identity, lasting time.Duration) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprint("test ", serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lasting),
		IsCA: by == nil, BasicConstraintsValid: true, DNSNames: []string{"a.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{certificate, key}
}

func (i *identity) pem(t *testing.T) (certificate, key string) {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.certificate.Raw})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// demanding answers with the serial number of the client's certificate, which must be of `authority`.
func demanding(t *testing.T, authority *identity, maxVersion uint16) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-serial", r.TLS.PeerCertificates[0].SerialNumber.String())
		w.Header().Set("x-name", r.TLS.ServerName)
	}))
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	own := issued(t, authority, time.Hour)
	server.TLS = &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, MaxVersion: maxVersion,
		Certificates: []tls.Certificate{{Certificate: [][]byte{own.certificate.Raw}, PrivateKey: own.key}},
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func tlsDraw(t *testing.T, url string, with map[string]any, count int) *drawn {
	t.Helper()
	text, err := json.Marshal(map[string]any{"url": url, "count": count, "tls": with})
	if err != nil {
		t.Fatal(err)
	}
	return drawOf(t, string(text))
}

func TestAClientCertificateIsPresentedOnKeptConnections(t *testing.T) {
	authority := issued(t, nil, time.Hour)
	url := demanding(t, authority, tls.VersionTLS13)
	own := issued(t, authority, time.Hour)
	certificate, key := own.pem(t)
	root, _ := authority.pem(t)
	got := tlsDraw(t, url, map[string]any{"certificate_pem": certificate, "key_pem": key, "ca_pem": root, "server_name": "a.example", "alpn": []string{"istio", "http/1.1"}}, 5)
	connections := map[string]bool{}
	for _, one := range got.Records {
		connections[one.Connection] = true
		if one.Status != 200 || one.Headers["x-serial"][0] != own.certificate.SerialNumber.String() || one.Headers["x-name"][0] != "a.example" {
			t.Errorf("record %+v", one)
		}
	}
	if len(connections) != 1 {
		t.Errorf("%d connections for 5 calls", len(connections))
	}
}

func TestARefusedCertificateIsARecordWithTheAlert(t *testing.T) {
	authority, foreign := issued(t, nil, time.Hour), issued(t, nil, time.Hour)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		url := demanding(t, authority, version)
		for what, one := range map[string]struct {
			own  *identity
			said string
		}{
			"expired": {issued(t, authority, -time.Minute), "tls: remote error: tls: expired certificate"},
			"foreign": {issued(t, foreign, time.Hour), "tls: remote error: tls: "},
			"none":    {nil, "tls: remote error: tls: "},
		} {
			with := map[string]any{}
			if one.own != nil {
				with["certificate_pem"], with["key_pem"] = one.own.pem(t)
			}
			record := tlsDraw(t, url, with, 1).Records[0]
			if record.Status != 0 || !strings.HasPrefix(record.Error, one.said) {
				t.Errorf("%s at TLS %x: record %+v", what, version, record)
			}
		}
	}
}

func TestAServerOfAnotherAuthorityIsRefused(t *testing.T) {
	authority := issued(t, nil, time.Hour)
	certificate, key := issued(t, authority, time.Hour).pem(t)
	other, _ := issued(t, nil, time.Hour).pem(t)
	record := tlsDraw(t, demanding(t, authority, 0), map[string]any{"certificate_pem": certificate, "key_pem": key, "ca_pem": other}, 1).Records[0]
	if record.Status != 0 || !strings.HasPrefix(record.Error, "tls: ") || !strings.Contains(record.Error, "unknown authority") {
		t.Errorf("record %+v", record)
	}
}

func TestTLSToAPlainServerIsARecord(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	record := tlsDraw(t, strings.Replace(server.URL, "http:", "https:", 1), nil, 1).Records[0]
	if record.Status != 0 || !strings.HasPrefix(record.Error, "tls: ") {
		t.Errorf("record %+v", record)
	}
}

func TestOrdersOfTLSThatCannotBeMade(t *testing.T) {
	for _, text := range []string{
		`{"url":"http://a","tls":{}}`,
		`{"url":"https://a","tls":{"certificate_pem":"x","key_pem":"y"}}`,
		`{"url":"https://a","tls":{"ca_pem":"x"}}`,
		`{"url":"ftp://a"}`,
		`{"url":"https://a","protocol":"h2"}`,
	} {
		if _, err := readOrder(strings.NewReader(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	if asked, err := readOrder(strings.NewReader(`{"url":"https://a/x"}`)); err != nil || asked.address != "a:443" || asked.TLS == nil {
		t.Errorf("%+v, %v", asked, err)
	}
}
