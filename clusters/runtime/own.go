// What this process may grant, read from the kernel.

package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Linux numbers of the resource limits under their OCI names (asm-generic/resource.h: amd64 and arm64).
var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6,
	"RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12,
	"RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

func ownLimits() (limits, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return limits{}, err
	}
	mask, err := boundingSet(string(status))
	if err != nil {
		return limits{}, err
	}
	last, err := readInt("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return limits{}, err
	}
	own := limits{missing: missingFrom(mask, last), hard: map[string]uint64{}}
	if !own.missing["CAP_SYS_RESOURCE"] {
		return own, nil
	}
	if own.oomScoreAdj, err = readInt("/proc/self/oom_score_adj"); err != nil {
		return limits{}, err
	}
	for name, number := range rlimitNumbers {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(number, &limit); err != nil {
			return limits{}, err
		}
		own.hard[name] = limit.Max
	}
	return own, nil
}

func readInt(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
