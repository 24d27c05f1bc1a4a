// Package storetest does to the files of stores what disks, file systems and people do to them, for tests.
package storetest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Setting is a number from the environment, or what it is by itself.
func Setting(tb testing.TB, name string, otherwise int64) int64 {
	tb.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		tb.Fatalf("%s=%q: a decimal number is allowed", name, text)
	}
	return n
}

// Durations are measured times.
type Durations []time.Duration

// String is their median, 99th percentile and maximum.
func (d Durations) String() string {
	if len(d) == 0 {
		return "none measured"
	}
	all := slices.Sorted(slices.Values(d))
	at := func(part float64) time.Duration {
		return all[int(part*float64(len(all)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("median %v, p99 %v, max %v", at(0.5), at(0.99), at(1))
}
