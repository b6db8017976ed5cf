package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var reduced = limits{
	missing:     map[string]bool{"CAP_SYS_RESOURCE": true},
	oomScoreAdj: -5,
	hard:        map[string]uint64{"RLIMIT_NOFILE": 4096},
}

const config = `{"ociVersion":"1.2.0","hostname":"<a&b>","linux":{"resources":{"memory":{"limit":18446744073709551615}}},
"process":{"args":["/x","18446744073709551615"],"oomScoreAdj":-998,
"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":4097},{"type":"RLIMIT_CORE","hard":18446744073709551615,"soft":0}],
"capabilities":{"bounding":["CAP_SYS_RESOURCE","CAP_KILL"],"effective":["CAP_KILL","cap_sys_resource"],"permitted":["CAP_SYS_RESOURCE"],"inheritable":["CAP_SYS_RESOURCE"],"ambient":null}}}`

func TestWhatIsMissingIsTakenOutAndTheRestKeepsItsBytes(t *testing.T) {
	after, changed, err := boundConfig([]byte(config), reduced)
	if err != nil || !changed {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	want := `{"hostname":"<a&b>","linux":{"resources":{"memory":{"limit":18446744073709551615}}},"ociVersion":"1.2.0",` +
		`"process":{"args":["/x","18446744073709551615"],` +
		`"capabilities":{"ambient":null,"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"inheritable":[],"permitted":[]},"oomScoreAdj":-5,` +
		`"rlimits":[{"hard":4096,"soft":4096,"type":"RLIMIT_NOFILE"},{"hard":18446744073709551615,"soft":0,"type":"RLIMIT_CORE"}]}}`
	if string(after) != want {
		t.Errorf("expected %s\nseen     %s", want, after)
	}
}

func TestASecondRewriteChangesNothing(t *testing.T) {
	once, _, err := boundConfig([]byte(config), reduced)
	if err != nil {
		t.Fatal(err)
	}
	if _, changed, err := boundConfig(once, reduced); changed || err != nil {
		t.Errorf("changed %v, error %v", changed, err)
	}
}

func TestNothingMissingLeavesEveryByte(t *testing.T) {
	after, changed, err := boundConfig([]byte(config), limits{oomScoreAdj: 0, hard: map[string]uint64{"RLIMIT_NOFILE": 1}})
	if changed || err != nil || string(after) != config {
		t.Errorf("changed %v, error %v, seen %s", changed, err, after)
	}
}

func TestLimitsStayWhenOnlyAnotherCapabilityIsMissing(t *testing.T) {
	after, changed, err := boundConfig([]byte(config), limits{missing: map[string]bool{"CAP_KILL": true}, hard: map[string]uint64{"RLIMIT_NOFILE": 1}})
	if err != nil || !changed {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	if !strings.Contains(string(after), `"oomScoreAdj":-998`) || strings.Contains(string(after), "CAP_KILL") {
		t.Errorf("seen %s", after)
	}
}

func TestAProcessWithoutTheFieldsIsLeftAlone(t *testing.T) {
	for _, text := range []string{`{}`, `{"capabilities":null,"rlimits":null,"oomScoreAdj":null}`, `{"oomScoreAdj":100,"rlimits":[]}`} {
		if after, changed, err := boundProcess([]byte(text), reduced); changed || err != nil || string(after) != text {
			t.Errorf("%s: changed %v, error %v, seen %s", text, changed, err, after)
		}
	}
	for _, text := range []string{`{}`, `{"process":null}`} {
		if _, changed, err := boundConfig([]byte(text), reduced); changed || err != nil {
			t.Errorf("%s: changed %v, error %v", text, changed, err)
		}
	}
}

func TestWhatIsNotAnOCIDocumentIsAnError(t *testing.T) {
	for _, text := range []string{``, `null`, `[]`, `{"process":3}`, `{"process":{"capabilities":[]}}`, `{"process":{"rlimits":[{"hard":1}]}}`} {
		if _, changed, err := boundConfig([]byte(text), reduced); err == nil || changed {
			t.Errorf("%q: changed %v, error %v", text, changed, err)
		}
	}
}

func TestTheMaskNamesWhatItLacks(t *testing.T) {
	mask, err := boundingSet("Name:\tx\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := missingFrom(mask, 40); !reflect.DeepEqual(got, map[string]bool{"CAP_SYS_RESOURCE": true}) {
		t.Errorf("seen %v", got)
	}
	// An older kernel knows fewer capabilities: those it does not know are not missing.
	if got := missingFrom(0x3fffffffff, 37); len(got) != 0 {
		t.Errorf("seen %v", got)
	}
	if _, err := boundingSet("Name:\tx\n"); err == nil {
		t.Error("expected an error without CapBnd")
	}
}

func TestTheFileIsFoundInEveryFormOfTheCall(t *testing.T) {
	for line, want := range map[string]string{
		"--root /r --log /l --log-format json create --bundle /b --pid-file /p id": "/b/config.json",
		"--log=/l --systemd-cgroup run -b /b id":                                   "/b/config.json",
		"create --bundle=/b --no-pivot id":                                         "/b/config.json",
		"create id":                                                                "config.json",
		"--root /create exec --process /p.json --detach --pid-file /x id":          "/p.json",
		"exec -t -p /p.json id":                                                    "/p.json",
		"exec --user 1 id mkdir -p /data":                                          "",
		"state id":                                                                 "",
		"--version":                                                                "",
		"":                                                                         "",
	} {
		if _, got, rewrite := target(strings.Fields(line)); got != want || (rewrite != nil) != (want != "") {
			t.Errorf("%q: expected %q, seen %q", line, want, got)
		}
	}
	if log, _, _ := target(strings.Fields("--root /r --log /l state id")); log != "/l" {
		t.Errorf("log: seen %q", log)
	}
}

func TestTheFileIsReplacedWholeAndKeepsItsMode(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "config.json")
	if err := os.WriteFile(path, []byte("before"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := replace(path, []byte("after")); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(path)
	content, _ := os.ReadFile(path)
	entries, _ := os.ReadDir(folder)
	if string(content) != "after" || after.Mode() != before.Mode() || os.SameFile(before, after) || len(entries) != 1 {
		t.Errorf("content %q, mode %v, same file %v, %d entries", content, after.Mode(), os.SameFile(before, after), len(entries))
	}
}

func FuzzARewriteIsJSONAndKeepsTheRest(f *testing.F) {
	f.Add([]byte(config))
	f.Add([]byte(`{"process":{"capabilities":{"bounding":["CAP_SYS_RESOURCE"]}},"x":1e400}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		after, changed, err := boundConfig(text, reduced)
		if err != nil || !changed {
			return
		}
		var was, is object
		if json.Unmarshal(text, &was) != nil || json.Unmarshal(after, &is) != nil || len(was) != len(is) {
			t.Fatalf("from %q to %q", text, after)
		}
	})
}
