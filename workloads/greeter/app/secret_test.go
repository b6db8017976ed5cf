package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSealIsMadeWithTheFileOfTheMoment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if got := seal(file, "n"); got != "" {
		t.Errorf("without a file: %s", got)
	}
	os.WriteFile(file, []byte("one"), 0o600)
	one := seal(file, "n")
	os.WriteFile(file, []byte("two"), 0o600)
	if two := seal(file, "n"); len(one) != 64 || one == two || one == seal(file, "m") {
		t.Errorf("%s, then %s", one, two)
	}
}

func TestTheSealIsSaidInAHeader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	os.WriteFile(file, []byte("one"), 0o600)
	g := newGreeter("v1", "pod-1", "")
	if got := ask(t, g, "GET", "/", "X-Nonce", "n").Header().Get("x-seal"); got != "" {
		t.Errorf("without a secret: %s", got)
	}
	g.secretFile = file
	if got := ask(t, g, "GET", "/", "X-Nonce", "n").Header().Get("x-seal"); got != seal(file, "n") {
		t.Errorf("seal %q", got)
	}
}

func TestSearchSaysWhereAndNotWhat(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "etc"), 0o700)
	os.MkdirAll(filepath.Join(root, "proc"), 0o700)
	for _, name := range []string{"etc/with", "proc/self"} {
		os.WriteFile(filepath.Join(root, name), []byte("x needle y"), 0o600)
	}
	os.WriteFile(filepath.Join(root, "etc/without"), []byte("x"), 0o600)
	seen := search(root, []string{"A=a needle", "B=b"}, []byte("needle"))
	if fmt.Sprint(seen) != fmt.Sprint(found{[]string{"A"}, []string{filepath.Join(root, "etc/with")}, 2, 2}) {
		t.Errorf("found %+v", seen)
	}
}

func TestSearchIsAnsweredOnTheAdminPortOnly(t *testing.T) {
	g := newGreeter("v1", "pod-1", "")
	g.root = t.TempDir()
	body := func() *http.Request {
		return httptest.NewRequest("POST", "/_search", strings.NewReader("needle-that-is-nowhere"))
	}
	admin, function := httptest.NewRecorder(), httptest.NewRecorder()
	g.administer(admin, body())
	g.ServeHTTP(function, body())
	if !strings.Contains(admin.Body.String(), `"files_searched"`) || strings.Contains(function.Body.String(), `"files_searched"`) {
		t.Errorf("admin %s, function %s", admin.Body, function.Body)
	}
}
