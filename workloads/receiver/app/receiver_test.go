package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func send(t *testing.T, handler http.Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader(body)))
	return answer
}

func came(t *testing.T, r *receiver) []notification {
	t.Helper()
	var found []notification
	if err := json.Unmarshal(send(t, r.control(), "GET", "/_notifications", "").Body.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func at(second int) time.Time { return time.Date(2026, 1, 2, 3, 4, second, 500, time.UTC) }

func TestANotificationIsKeptWithItsInboxItsTimeAndItsWords(t *testing.T) {
	now := at(5)
	r := newReceiver(func() time.Time { return now })
	if code := send(t, r.public(), "POST", "/steady", `{"status": "firing"}`).Code; code != http.StatusOK {
		t.Fatalf("answered %d", code)
	}
	now = at(6)
	send(t, r.public(), "POST", "/other", `{"status": "resolved"}`)
	found := came(t, r)
	if len(found) != 2 || found[0].Inbox != "steady" || found[0].Refused || !found[0].At.Equal(at(5)) || found[1].Inbox != "other" || !found[1].At.Equal(at(6)) {
		t.Fatalf("kept %+v", found)
	}
	var body map[string]string
	if err := json.Unmarshal(found[0].Body, &body); err != nil || body["status"] != "firing" {
		t.Fatalf("kept %s", found[0].Body)
	}
}

func TestAnInboxRefusesUntilToldOtherwiseAndKeepsWhatItRefused(t *testing.T) {
	r := newReceiver(time.Now)
	send(t, r.control(), "POST", "/_behaviour/refuse/shaky", "")
	if code := send(t, r.public(), "POST", "/shaky", "{}").Code; code != http.StatusServiceUnavailable {
		t.Fatalf("answered %d", code)
	}
	if code := send(t, r.public(), "POST", "/steady", "{}").Code; code != http.StatusOK {
		t.Fatalf("another inbox answered %d", code)
	}
	send(t, r.control(), "POST", "/_behaviour/accept/shaky", "")
	if code := send(t, r.public(), "POST", "/shaky", "{}").Code; code != http.StatusOK {
		t.Fatalf("answered %d", code)
	}
	if found := came(t, r); len(found) != 3 || !found[0].Refused || found[1].Refused || found[2].Refused {
		t.Fatalf("kept %+v", found)
	}
}

func TestWhatIsNoNotificationIsNotKept(t *testing.T) {
	r := newReceiver(time.Now)
	for _, one := range []struct {
		method, path, body string
		code               int
	}{
		{"POST", "/steady", "no json", http.StatusBadRequest},
		{"POST", "/steady", "", http.StatusBadRequest},
		{"GET", "/steady", "", http.StatusMethodNotAllowed},
		{"POST", "/steady", `"` + strings.Repeat("a", longestBody) + `"`, http.StatusRequestEntityTooLarge},
	} {
		if code := send(t, r.public(), one.method, one.path, one.body).Code; code != one.code {
			t.Errorf("%s %s answered %d, not %d", one.method, one.path, code, one.code)
		}
	}
	if found := came(t, r); len(found) != 0 {
		t.Fatalf("kept %+v", found)
	}
}

func TestAnUnknownBehaviourIsRefused(t *testing.T) {
	if code := send(t, newReceiver(time.Now).control(), "POST", "/_behaviour/explode/steady", "").Code; code != http.StatusBadRequest {
		t.Fatalf("answered %d", code)
	}
}

func TestMoreThanItKeepsIsRefusedAndNotForgotten(t *testing.T) {
	r := newReceiver(time.Now)
	for range most {
		r.keep("steady", []byte("{}"))
	}
	if code := send(t, r.public(), "POST", "/steady", "{}").Code; code != http.StatusServiceUnavailable || len(came(t, r)) != most {
		t.Fatalf("answered %d", code)
	}
}
