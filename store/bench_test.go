package store

import (
	"fmt"
	"testing"
)

// BenchmarkApply is one write at a time: the price of an address.
func BenchmarkApply(b *testing.B) {
	s := mustOpen(b, b.TempDir())
	value := make([]byte, 200)
	for n := 0; b.Loop(); n++ {
		mustApply(b, s, Write{fmt.Sprint("lease/", n%1000), value})
	}
}

// BenchmarkOpen is a start with ten thousand leases, half of them still in the journal.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, dir)
	value := make([]byte, 200)
	for half := range 2 {
		var writes []Write
		for n := range 5000 {
			writes = append(writes, Write{fmt.Sprint("lease/", half, "/", n), value})
		}
		mustApply(b, s, writes...)
	}
	s.Close()
	for b.Loop() {
		mustOpen(b, dir).Close()
	}
}
