package main

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEachKindMeasuresLoopback(t *testing.T) {
	for name, k := range kinds {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(name+" "+host, func(t *testing.T) {
				socket, err := k.listen(netip.AddrPortFrom(netip.MustParseAddr(host), 0))
				if err != nil {
					t.Fatal(err)
				}
				addr := netip.AddrPortFrom(netip.MustParseAddr(host), portOf(t, socket))
				type served struct {
					*Result
					err error
				}
				done := make(chan served, 1)
				go func() {
					r, err := k.serve(socket)
					done <- served{r, err}
				}()
				result, err := k.run(addr, 50*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				if result == nil {
					s := <-done
					if s.err != nil {
						t.Fatal(s.err)
					}
					result = s.Result
				} else if result.P50 <= 0 || result.P99 < result.P50 {
					t.Errorf("half of the transactions took %.1f µs, 99 %% took %.1f", result.P50, result.P99)
				} else if err := unix.Shutdown(socket, unix.SHUT_RDWR); err != nil { // ends accept
					t.Error(err)
				}
				if result.Rate <= 0 {
					t.Errorf("%f a second", result.Rate)
				}
			})
		}
	}
}

func portOf(t *testing.T, socket int) uint16 {
	where, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	switch where := where.(type) {
	case *unix.SockaddrInet4:
		return uint16(where.Port)
	case *unix.SockaddrInet6:
		return uint16(where.Port)
	}
	t.Fatalf("address %v", where)
	return 0
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	for _, args := range [][]string{nil, {"sctp", "serve", "127.0.0.1:1"}, {"rr", "nowhere", "1s"}, {"rr", "127.0.0.1:1", "long"}, {"rr", "127.0.0.1:1", "1s"}} {
		if err := run(args); err == nil {
			t.Errorf("load %q: no error", args)
		}
	}
}
