// What a reduced bounding set refuses, taken out of an OCI process; pure functions over JSON.

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// limits is what this process may still grant to another.
type limits struct {
	missing     map[string]bool   // capabilities that the bounding set lacks
	oomScoreAdj int               // our own; without CAP_SYS_RESOURCE nobody may go below it
	hard        map[string]uint64 // hard limits by OCI name; without CAP_SYS_RESOURCE nobody may go above them
}

// object keeps every value as it was written: numbers up to 2^64-1 do not survive a float64.
type object = map[string]json.RawMessage

// boundConfig rewrites `process` of a bundle's config.json; every other field keeps its bytes.
func boundConfig(config []byte, own limits) ([]byte, bool, error) {
	fields, err := decode(config)
	if err != nil || isNull(fields["process"]) {
		return config, false, err
	}
	process, changed, err := boundProcess(fields["process"], own)
	if err != nil || !changed {
		return config, false, err
	}
	fields["process"] = process
	after, err := encode(fields)
	return after, err == nil, err
}

// boundProcess rewrites one OCI process, the whole content of exec's process.json.
func boundProcess(process []byte, own limits) ([]byte, bool, error) {
	fields, err := decode(process)
	if err != nil {
		return process, false, err
	}
	steps := []func(object, limits) (bool, error){boundCapabilities}
	if own.missing["CAP_SYS_RESOURCE"] {
		steps = append(steps, boundOOMScore, boundRlimits)
	}
	changed := false
	for _, step := range steps {
		did, err := step(fields, own)
		if err != nil {
			return process, false, err
		}
		changed = changed || did
	}
	if !changed {
		return process, false, nil
	}
	after, err := encode(fields)
	return after, err == nil, err
}

func boundCapabilities(process object, own limits) (bool, error) {
	if isNull(process["capabilities"]) {
		return false, nil
	}
	sets, err := decode(process["capabilities"])
	if err != nil {
		return false, fmt.Errorf("process.capabilities: %w", err)
	}
	changed := false
	for _, name := range []string{"bounding", "effective", "permitted", "inheritable", "ambient"} {
		if isNull(sets[name]) {
			continue
		}
		var asked []string
		if err := json.Unmarshal(sets[name], &asked); err != nil {
			return false, fmt.Errorf("process.capabilities.%s: %w", name, err)
		}
		granted := make([]string, 0, len(asked))
		for _, capability := range asked {
			if !own.missing[strings.ToUpper(capability)] {
				granted = append(granted, capability)
			}
		}
		if len(granted) == len(asked) {
			continue
		}
		if sets[name], err = encode(granted); err != nil {
			return false, err
		}
		changed = true
	}
	if changed {
		process["capabilities"], err = encode(sets)
	}
	return changed, err
}

func boundOOMScore(process object, own limits) (bool, error) {
	if isNull(process["oomScoreAdj"]) {
		return false, nil
	}
	var asked int
	if err := json.Unmarshal(process["oomScoreAdj"], &asked); err != nil {
		return false, fmt.Errorf("process.oomScoreAdj: %w", err)
	}
	if asked >= own.oomScoreAdj {
		return false, nil
	}
	process["oomScoreAdj"] = json.RawMessage(strconv.Itoa(own.oomScoreAdj))
	return true, nil
}

func boundRlimits(process object, own limits) (bool, error) {
	if isNull(process["rlimits"]) {
		return false, nil
	}
	var asked []object
	if err := json.Unmarshal(process["rlimits"], &asked); err != nil {
		return false, fmt.Errorf("process.rlimits: %w", err)
	}
	changed := false
	for _, rlimit := range asked {
		var name string
		if err := json.Unmarshal(rlimit["type"], &name); err != nil {
			return false, fmt.Errorf("process.rlimits type: %w", err)
		}
		ceiling, known := own.hard[name]
		if !known {
			continue
		}
		for _, bound := range []string{"hard", "soft"} {
			value, err := strconv.ParseUint(string(rlimit[bound]), 10, 64)
			if err != nil {
				return false, fmt.Errorf("process.rlimits %s %s: %w", name, bound, err)
			}
			if value > ceiling {
				rlimit[bound] = json.RawMessage(strconv.FormatUint(ceiling, 10))
				changed = true
			}
		}
	}
	if !changed {
		return false, nil
	}
	rewritten, err := encode(asked)
	process["rlimits"] = rewritten
	return err == nil, err
}

// missingFrom names the capabilities, up to the last one the kernel knows, that are not in the mask.
func missingFrom(mask uint64, last int) map[string]bool {
	missing := map[string]bool{}
	for bit, name := range capabilities {
		if bit <= last && mask&(1<<bit) == 0 {
			missing[name] = true
		}
	}
	return missing
}

// boundingSet reads CapBnd from the text of /proc/self/status.
func boundingSet(status string) (uint64, error) {
	for _, line := range strings.Split(status, "\n") {
		if value, found := strings.CutPrefix(line, "CapBnd:"); found {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return math.MaxUint64, fmt.Errorf("no CapBnd in /proc/self/status")
}

func decode(raw []byte) (object, error) {
	var fields object
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, fmt.Errorf("expected a JSON object, seen null")
	}
	return fields, nil
}

func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimRight(out.Bytes(), "\n"), err
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// capabilities in the order of linux/capability.h: the index is the bit.
var capabilities = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}
