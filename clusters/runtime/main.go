// Command runc-bounded runs runc on a machine whose capability bounding set is reduced.
//
// It is called exactly as runc is (dockerd's default runtime, containerd's BinaryName). A privileged container asks for
// every capability; the kernel refuses those that the bounding set no longer has, and the container never starts. So
// they are taken out of the request first. On a machine that lacks none, runc is executed at once and no file is touched.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options that take their value from the next argument; all others are switches. From runc 1.4.
var (
	globalValues = set("criu", "log", "log-format", "root", "rootless")
	bundleValues = set("bundle", "b", "console-socket", "pidfd-socket", "pid-file", "preserve-fds")
	execValues   = set("console-socket", "pidfd-socket", "cwd", "env", "e", "user", "u", "additional-gids", "g", "process", "p",
		"pid-file", "process-label", "apparmor", "cap", "c", "preserve-fds", "cgroup")
)

func main() {
	log, file, rewrite := target(os.Args[1:])
	if rewrite != nil {
		if err := rewriteFile(file, rewrite); err != nil {
			fail(log, err)
		}
	}
	runc, err := findRunc()
	if err != nil {
		fail(log, err)
	}
	fail(log, fmt.Errorf("cannot execute %s: %w", runc, syscall.Exec(runc, os.Args, os.Environ())))
}

// target tells which file the call will make runc read, and how to rewrite it; no rewriter when the call reads none.
func target(args []string) (log, file string, rewrite func([]byte, limits) ([]byte, bool, error)) {
	global, rest := options(args, globalValues)
	log = global["log"]
	if len(rest) == 0 {
		return log, "", nil
	}
	switch rest[0] {
	case "create", "run":
		given, _ := options(rest[1:], bundleValues)
		bundle := first(given["bundle"], given["b"], ".")
		return log, filepath.Join(bundle, "config.json"), boundConfig
	case "exec":
		// The container's own command line follows its id, so options end there; one given inline names no file.
		given, _ := options(rest[1:], execValues)
		if process := first(given["process"], given["p"]); process != "" {
			return log, process, boundProcess
		}
	}
	return log, "", nil
}

// options reads the options before the first positional argument, and returns what follows them.
func options(args []string, takesValue map[string]bool) (map[string]string, []string) {
	given := map[string]string{}
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return given, args[i+1:]
		}
		if len(args[i]) < 2 || args[i][0] != '-' {
			return given, args[i:]
		}
		name, value, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !inline && takesValue[name] && i+1 < len(args) {
			i++
			value = args[i]
		}
		given[name] = value
	}
	return given, nil
}

// rewriteFile replaces the file whole, so that runc never sees half of it. A file that cannot be read is left to runc to complain about.
func rewriteFile(path string, rewrite func([]byte, limits) ([]byte, bool, error)) error {
	own, err := ownLimits()
	if err != nil || len(own.missing) == 0 {
		return err
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	before, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	after, changed, err := rewrite(before, own)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !changed {
		return nil
	}
	return replace(path, after)
}

func replace(path string, content []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if _, err = temporary.Write(content); err == nil {
		err = temporary.Chmod(info.Mode().Perm())
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
		err = temporary.Chown(int(owner.Uid), int(owner.Gid))
	}
	if closed := temporary.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

// findRunc returns the runc to execute. This program may itself be installed under one of the names.
func findRunc() (string, error) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", err
	}
	for _, path := range []string{os.Getenv("FAASMESH_RUNC"), "/usr/local/sbin/runc", "/usr/sbin/runc", "/usr/bin/runc"} {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 && !os.SameFile(self, info) {
			return path, nil
		}
	}
	return "", errors.New("no runc: expected $FAASMESH_RUNC or runc in /usr/local/sbin, /usr/sbin or /usr/bin")
}

// fail reports where runc's callers look: containerd shows the last error line of the log file, a person reads standard error.
func fail(log string, err error) {
	message := "runc-bounded: " + err.Error()
	fmt.Fprintln(os.Stderr, message)
	if log != "" {
		line, _ := json.Marshal(map[string]string{"level": "error", "msg": message, "time": time.Now().UTC().Format(time.RFC3339)})
		if file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err == nil {
			fmt.Fprintln(file, string(line))
			file.Close()
		}
	}
	os.Exit(1)
}

func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

func set(names ...string) map[string]bool {
	members := make(map[string]bool, len(names))
	for _, name := range names {
		members[name] = true
	}
	return members
}
