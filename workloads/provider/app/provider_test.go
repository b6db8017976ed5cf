package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const configuration = `{"signing_key": "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
	"client": {"id": "edge", "secret": "s3cret", "redirect_uri": "http://edge/callback"},
	"users": {"alice": {"password": "right", "token_seconds": 300}}}`

// login goes through the login form as a browser does and returns the URL it is sent back to, empty where the form is shown again.
func login(t *testing.T, browser *http.Client, server, password string) string {
	t.Helper()
	ask := url.Values{"client_id": {"edge"}, "redirect_uri": {"http://edge/callback"}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"}}
	response := send(t, browser, "GET", server+"/auth?"+ask.Encode(), "")
	form := response.Header.Get("Location")
	id := form[strings.Index(form, "=")+1:]
	entered := url.Values{"id": {id}, "username": {"alice"}, "password": {password}}
	response = send(t, browser, "POST", server+"/login/username", entered.Encode())
	if response.StatusCode == http.StatusOK {
		return ""
	}
	return send(t, browser, "GET", response.Header.Get("Location"), "").Header.Get("Location")
}

func send(t *testing.T, browser *http.Client, method, target, body string) *http.Response {
	t.Helper()
	request, _ := http.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := browser.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func start(t *testing.T) (*http.Client, string) {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	var err error
	if handler, err = newHandler(server.URL, []byte(configuration)); err != nil {
		t.Fatal(err)
	}
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, server.URL
}

func TestACodeBuysAnAccessTokenOthersCanRead(t *testing.T) {
	browser, server := start(t)
	back, err := url.Parse(login(t, browser, server, "right"))
	if err != nil || back.Query().Get("state") != "s" || back.Query().Get("code") == "" {
		t.Fatalf("sent back to %v %v", back, err)
	}
	paid := url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {"http://edge/callback"}}
	buy := func() (int, map[string]any) {
		request, _ := http.NewRequest("POST", server+"/oauth/token", strings.NewReader(paid.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth("edge", "s3cret")
		response, err := browser.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		said := map[string]any{}
		json.Unmarshal(text, &said)
		return response.StatusCode, said
	}
	status, said := buy()
	if token, _ := said["access_token"].(string); status != 200 || strings.Count(token, ".") != 2 {
		t.Errorf("status %d, %d parts in the access token", status, strings.Count(token, ".")+1)
	}
	if seconds, _ := said["expires_in"].(float64); seconds < 298 || seconds > 300 {
		t.Errorf("expires in %v s, want 300", said["expires_in"])
	}
	if status, _ := buy(); status == 200 {
		t.Error("a code bought two tokens")
	}
}

func TestAWrongPasswordIsSentBackToTheForm(t *testing.T) {
	browser, server := start(t)
	if back := login(t, browser, server, "wrong"); back != "" {
		t.Errorf("sent on to %s", back)
	}
}

func TestTheExamplesPublishedCredentialsBuyNothing(t *testing.T) {
	browser, server := start(t)
	request, _ := http.NewRequest("POST", server+"/oauth/token", strings.NewReader("grant_type=client_credentials"))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("sid1", "verysecret")
	response, err := browser.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode == 200 {
		t.Error("a token was given")
	}
}

func TestAnIncompleteConfigurationIsRefused(t *testing.T) {
	for _, wrong := range []string{"", "{}", strings.Replace(configuration, "right", "", 1), strings.Replace(configuration, "0102", "zz", 1)} {
		if _, err := newHandler("http://x", []byte(wrong)); err == nil {
			t.Errorf("accepted: %s", wrong)
		}
	}
}
