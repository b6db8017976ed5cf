package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// failure is an error as a record says it: the phase and the cause, without addresses, so that equal causes read equal.
type failure struct{ phase, cause string }

func (f *failure) Error() string { return f.phase + ": " + f.cause }

func phase(name string, err error) error {
	var errno syscall.Errno
	var unresolved *net.DNSError
	if said, ok := alerted(err); ok {
		return &failure{"tls", said}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &failure{name, "timeout"}
	case errors.As(err, &errno):
		return &failure{name, errno.Error()}
	case errors.As(err, &unresolved):
		return &failure{name, unresolved.Err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{name, "closed by the other side"}
	default:
		return &failure{name, fmt.Sprint(err)}
	}
}
