package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

const (
	// Linux lets one connection more than the backlog into the queue; the rest is a margin, not an expectation.
	maxFilling = 4
	unanswered = 300 * time.Millisecond
)

// deafen listens on a port and takes no connection: the queue is filled by connections of its own, after which the kernel drops
// every SYN without an answer (tcp(7), tcp_abort_on_overflow concerns the last segment of a handshake only). To a client the
// port is a black hole, and nothing leaves the cluster on the way to it. The connections returned keep the queue full.
func deafen(port int) (filling []net.Conn, err error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Port: port}); err != nil {
		return nil, fmt.Errorf("bind to %d: %w", port, err)
	}
	if err := syscall.Listen(socket, 0); err != nil {
		return nil, fmt.Errorf("listen on %d: %w", port, err)
	}
	for range maxFilling {
		conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), unanswered)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return filling, nil
		case err != nil:
			return nil, err
		}
		filling = append(filling, conn)
	}
	return nil, fmt.Errorf("port %d still takes connections after %d of them", port, maxFilling)
}
