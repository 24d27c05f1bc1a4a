package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A caller calls a plugin as the engine does: HTTP on a unix socket, one connection for all calls.
type caller struct {
	conn int
	buf  []byte
}

// runAddress repeats what a container needs of the address pools: an address, and its release.
func runAddress(socket, pool string, d time.Duration) (*Result, error) {
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(conn)
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, fmt.Errorf("connect %s: %w", socket, err)
	}
	c := &caller{conn: conn, buf: make([]byte, 1<<16)}
	n := 0
	return measure(d, func() error {
		n++ // each container has another MAC address
		mac := fmt.Sprintf("02:be:%02x:%02x:%02x:%02x", byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		var got struct{ Address string }
		err := c.call("IpamDriver.RequestAddress", map[string]any{
			"PoolID": pool, "Address": "", "Options": map[string]string{"com.docker.network.endpoint.macaddress": mac},
		}, &got)
		if err != nil {
			return err
		}
		address, _, _ := strings.Cut(got.Address, "/")
		return c.call("IpamDriver.ReleaseAddress", map[string]any{"PoolID": pool, "Address": address}, &struct{}{})
	})
}

// call sends a request and reads the answer, which has a Content-Length.
func (c *caller) call(method string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\n\r\n", method, len(body))
	if _, err := unix.Write(c.conn, append([]byte(head), body...)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for have := 0; have < len(c.buf); {
		n, err := unix.Read(c.conn, c.buf[have:])
		if err != nil || n == 0 {
			return fmt.Errorf("%s: the answer ends after %d bytes: %w", method, have, err)
		}
		have += n
		head, body, whole := bytes.Cut(c.buf[:have], []byte("\r\n\r\n"))
		if !whole || len(body) < contentLength(head) {
			continue
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("%s: %s", method, body)
		}
		return json.Unmarshal(body, answer)
	}
	return fmt.Errorf("%s: the answer has more than %d bytes", method, len(c.buf))
}

// contentLength of an answer, in bytes. Without one the body counts as empty, and is no JSON.
func contentLength(head []byte) int {
	for line := range strings.Lines(string(head)) {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Content-Length") {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}
