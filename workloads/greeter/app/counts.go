package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
)

const (
	maxIDs   = 10_000
	maxPaths = 1_000
	// The path under which requests are counted once maxPaths others are known.
	otherPaths = "(other)"
)

// counts knows what reached the function since it started or since the last reset. Health checks, scrapes and questions
// for the counts are not counted. The Prometheus counters never go back.
type counts struct {
	mutex       sync.Mutex
	total       int64
	byPath      map[string]int64
	byID        map[string]int
	ids         []string // the ring of the last maxIDs ids, oldest at next
	next        int
	connections int
	generation  int // raised by reset, so that an open connection is counted anew
	inHand      int // requests under way, whatever reset says
	mostInHand  int

	invocations, errors int64
}

// snapshot is the answer to GET /_counts.
type snapshot struct {
	Total       int64            `json:"total"`
	ByPath      map[string]int64 `json:"by_path"`
	ByRequestID map[string]int   `json:"by_request_id"` // of the last 10 000 distinct ids
	Connections int              `json:"connections"`   // that carried at least one counted request
	MostInHand  int              `json:"most_in_hand"`  // the most requests that were under way at one time
}

// connection is what is remembered of one TCP connection: the generation of counts it was last counted in.
type connection struct{ generation int }

type connectionKey struct{}

func connectionOf(ctx context.Context) *connection {
	known, _ := ctx.Value(connectionKey{}).(*connection)
	return known
}

func newCounts() *counts {
	c := &counts{}
	c.reset()
	return c
}

func (c *counts) reset() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.total, c.connections, c.next = 0, 0, 0
	c.mostInHand = c.inHand
	c.byPath, c.byID, c.ids = map[string]int64{}, map[string]int{}, nil
	c.generation++
}

// request counts one and says its number, and its number among those with the same id.
func (c *counts) request(path, id string, from *connection) (total int64, attempt int) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.total++
	c.invocations++
	c.inHand++
	c.mostInHand = max(c.mostInHand, c.inHand)
	if _, known := c.byPath[path]; !known && len(c.byPath) >= maxPaths {
		path = otherPaths
	}
	c.byPath[path]++
	if from != nil && from.generation != c.generation {
		from.generation = c.generation
		c.connections++
	}
	if id != "" {
		c.remember(id)
		c.byID[id]++
	}
	return c.total, c.byID[id]
}

func (c *counts) remember(id string) {
	if _, known := c.byID[id]; known {
		return
	}
	if len(c.ids) < maxIDs {
		c.ids = append(c.ids, id)
		return
	}
	delete(c.byID, c.ids[c.next])
	c.ids[c.next] = id
	c.next = (c.next + 1) % maxIDs
}

// ended is said once of every request that was counted.
func (c *counts) ended() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.inHand--
}

func (c *counts) failed() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.errors++
}

func (c *counts) snapshot() snapshot {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return snapshot{Total: c.total, ByPath: maps.Clone(c.byPath), ByRequestID: maps.Clone(c.byID), Connections: c.connections, MostInHand: c.mostInHand}
}

func (c *counts) metrics(version string) string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	label := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(version)
	return fmt.Sprintf(`# HELP serverless_function_invocations_total Requests that reached the function.
# TYPE serverless_function_invocations_total counter
serverless_function_invocations_total{version="%[1]s"} %[2]d
# HELP serverless_function_errors_total Requests that the function answered with 5xx or not at all.
# TYPE serverless_function_errors_total counter
serverless_function_errors_total{version="%[1]s"} %[3]d
`, label, c.invocations, c.errors)
}
