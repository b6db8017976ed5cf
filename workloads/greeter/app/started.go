package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// /proc counts a process's age in ticks of USER_HZ, which Linux fixes at 100 for every program.
const ticksPerSecond = 100

// listening is the line by which a cold start is taken apart: since when there is a process, and since when it takes requests.
type listening struct {
	Runtime        string  `json:"runtime"`
	ProcessBeganMs float64 `json:"process_began_ms"` // milliseconds since 1970, to 10 ms; 0 where /proc does not say
	ListeningMs    float64 `json:"listening_ms"`     // milliseconds since 1970
}

func (g *greeter) sayListening(began float64) {
	line, _ := json.Marshal(listening{runtime.Version(), began, sinceEpoch(time.Now())})
	g.out.Print(string(line))
}

// processBeganMs says when the kernel made this process: before its runtime and this file.
func processBeganMs() float64 {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	return beganMs(string(stat), string(uptime), time.Now())
}

// beganMs reads field 22 of proc(5)'s stat; the second, the program's name, may hold spaces and brackets.
func beganMs(stat, uptime string, now time.Time) float64 {
	_, rest, found := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	up, _, _ := strings.Cut(uptime, " ")
	seconds, err := strconv.ParseFloat(up, 64)
	if !found || len(fields) < 20 || err != nil {
		return 0
	}
	ticks, err := strconv.ParseFloat(fields[19], 64)
	if err != nil {
		return 0
	}
	return sinceEpoch(now) - (seconds-ticks/ticksPerSecond)*1000
}

func sinceEpoch(t time.Time) float64 {
	return float64(t.UnixMicro()) / 1000
}

func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return text, "", false
}
