// Porcupine judges the register histories that our own checker judges, from the same file, for comparison.
//
//	porcupine HISTORY TIMEOUT    prints one JSON object
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"syscall"
	"time"

	"github.com/anishathalye/porcupine"
)

type line struct {
	Kind string
	Name string
	Mono float64
	Data struct {
		Op     string
		Phase  string
		Action string
		Key    string
		Value  *string
	}
}

// input is a write of a value, or a read; output is what a read saw. The empty string is absence.
type input struct {
	key   string
	write bool
	value string
}

var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(input).key
			byKey[key] = append(byKey[key], op)
		}
		keys := make([]string, 0, len(byKey))
		for key := range byKey {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		parts := make([][]porcupine.Operation, 0, len(keys))
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		if op := in.(input); op.write {
			return true, op.value
		}
		return out.(string) == state.(string), state
	},
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: porcupine HISTORY TIMEOUT")
	}
	timeout, err := time.ParseDuration(os.Args[2])
	if err != nil {
		fail(err)
	}
	begun, cpu := time.Now(), cpuSeconds()
	history := read(os.Args[1])
	readSeconds, readCPU := time.Since(begun).Seconds(), cpuSeconds()-cpu
	begun, cpu = time.Now(), cpuSeconds()
	result := porcupine.CheckOperationsTimeout(register, history, timeout)
	answer, err := json.Marshal(map[string]any{
		"operations": len(history),
		"result":     string(result),
		"read_s":     readSeconds,
		"read_cpu":   readCPU,
		"check_s":    time.Since(begun).Seconds(),
		"check_cpu":  cpuSeconds() - cpu,
	})
	if err != nil {
		fail(err)
	}
	fmt.Println(string(answer))
}

// read pairs the events of each operation; reads that were not answered tell nothing and are left out.
func read(path string) []porcupine.Operation {
	file, err := os.Open(path)
	if err != nil {
		fail(err)
	}
	defer file.Close()
	index := map[string]int{}
	answered := map[int]bool{}
	var found []porcupine.Operation
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 1<<20), 1<<24)
	for scanner.Scan() {
		var event line
		if err := json.Unmarshal(scanner.Bytes(), &event); err != nil {
			fail(err)
		}
		if event.Kind != "operation" || event.Name != "store" {
			continue
		}
		at := int64(event.Mono * 1e9)
		if event.Data.Phase == "invoke" {
			op := input{key: event.Data.Key, write: event.Data.Action == "write"}
			if event.Data.Value != nil {
				op.value = *event.Data.Value
			}
			index[event.Data.Op] = len(found)
			// Without an acknowledgement its effect may come at any time later.
			found = append(found, porcupine.Operation{Input: op, Call: at, Return: math.MaxInt64, Output: ""})
		} else if event.Data.Phase == "ok" {
			position := index[event.Data.Op]
			found[position].Return = at
			answered[position] = true
			if event.Data.Value != nil {
				found[position].Output = *event.Data.Value
			}
		}
	}
	if err := scanner.Err(); err != nil {
		fail(err)
	}
	var history []porcupine.Operation
	for position, op := range found {
		if op.Input.(input).write || answered[position] {
			history = append(history, op)
		}
	}
	return history
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, "porcupine:", reason)
	os.Exit(2)
}
