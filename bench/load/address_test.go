package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plugin answers calls in HTTP on one connection, in two pieces each, and counts them by their first line.
func plugin(t *testing.T, status, answer string) (socket string, calls func() map[string]int) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	seen, done := map[string]int{}, make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for r := bufio.NewReader(conn); ; {
			first, err := r.ReadString('\n')
			length := 0
			for line := ""; err == nil && line != "\r\n"; {
				line, err = r.ReadString('\n')
				if value, ok := strings.CutPrefix(line, "Content-Length: "); ok {
					length, _ = strconv.Atoi(strings.TrimSpace(value))
				}
			}
			if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil || first == "" {
				return
			}
			seen[strings.TrimSpace(first)]++
			if _, err = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n", status, len(answer)); err == nil {
				_, err = io.WriteString(conn, answer)
			}
			if err != nil {
				return
			}
		}
	}()
	return socket, func() map[string]int {
		l.Close()
		<-done
		return seen
	}
}

func TestAddressesAreMeasured(t *testing.T) {
	socket, calls := plugin(t, "200 OK", `{"Address":"10.1.0.3/24"}`)
	r, err := runAddress(socket, "pool", 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.P50 <= 0 || r.P99 < r.P50 || r.Rate <= 0 {
		t.Errorf("%+v", r)
	}
	got := calls()
	asked, released := got["POST /IpamDriver.RequestAddress HTTP/1.1"], got["POST /IpamDriver.ReleaseAddress HTTP/1.1"]
	if asked == 0 || asked != released || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestARefusalIsSaid(t *testing.T) {
	socket, calls := plugin(t, "500 Internal Server Error", `{"Err":"no address left"}`)
	if _, err := runAddress(socket, "pool", time.Second); err == nil || !strings.Contains(err.Error(), "no address left") {
		t.Errorf("%v", err)
	}
	calls()
	if err := run([]string{"address", socket, "pool", "1s"}); err == nil || !strings.Contains(err.Error(), "connect "+socket) {
		t.Errorf("nobody listens: %v", err)
	}
	if err := run([]string{"address", socket, "pool", "long"}); err == nil || !strings.Contains(err.Error(), "long") {
		t.Errorf("%v", err)
	}
}
