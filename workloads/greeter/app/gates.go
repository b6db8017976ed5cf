package main

import (
	"context"
	"sync"
	"time"
)

// More names than checks ever use on one pod; the oldest is forgotten, and what it still holds goes on.
const maxGates = 1_000

// gates hold requests until they are released by name, so that a check can have exactly so many under way without relying on
// how fast a machine is. A released name stays released: what asks for it later passes at once.
type gates struct {
	mutex  sync.Mutex
	opened map[string]chan struct{}
	names  []string // oldest first
}

func newGates() *gates { return &gates{opened: map[string]chan struct{}{}} }

// of returns the channel that is closed once name is released.
func (g *gates) of(name string) chan struct{} {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if gate, known := g.opened[name]; known {
		return gate
	}
	if len(g.names) == maxGates {
		open(g.opened[g.names[0]])
		delete(g.opened, g.names[0])
		g.names = g.names[1:]
	}
	gate := make(chan struct{})
	g.opened[name] = gate
	g.names = append(g.names, name)
	return gate
}

func (g *gates) release(name string) {
	gate := g.of(name)
	g.mutex.Lock()
	defer g.mutex.Unlock()
	open(gate)
}

// pass waits for the release of name ("" is held by nothing) or a minute; it says false when the client went away or the pod ends.
func (g *gates) pass(client context.Context, draining <-chan struct{}, name string) bool {
	if name == "" {
		return true
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-g.of(name):
	case <-timer.C:
	case <-client.Done():
		return false
	case <-draining:
		return false
	}
	return true
}

func open(gate chan struct{}) {
	select {
	case <-gate:
	default:
		close(gate)
	}
}
