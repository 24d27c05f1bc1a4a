package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

func open(addr netip.AddrPort, kind int) (int, unix.Sockaddr, error) {
	family, where := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, where = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	socket, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("socket: %w", err)
	}
	return socket, where, nil
}

func listenTCP(addr netip.AddrPort) (int, error) {
	socket, where, err := open(addr, unix.SOCK_STREAM)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(socket, where); err != nil {
		return 0, fmt.Errorf("bind %s: %w", addr, err)
	}
	return socket, unix.Listen(socket, 128)
}

func listenUDP(addr netip.AddrPort) (int, error) {
	socket, where, err := open(addr, unix.SOCK_DGRAM)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(socket, where); err != nil {
		return 0, fmt.Errorf("bind %s: %w", addr, err)
	}
	return socket, nil
}

// accept returns the next connection, whose single bytes are sent at once.
func accept(socket int) (int, error) {
	conn, _, err := unix.Accept4(socket, unix.SOCK_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("accept: %w", err)
	}
	return conn, unix.SetsockoptInt(conn, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// connect opens a socket and connects it. It sets no time limits: with one, a signal of Go's scheduler ends a system call
// that the kernel would take up again (SA_RESTART, signal(7)). Who starts this program bounds it.
func connect(addr netip.AddrPort, kind int) (int, error) {
	socket, where, err := open(addr, kind)
	if err != nil {
		return 0, err
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(socket, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return 0, err
		}
	}
	if err := unix.Connect(socket, where); err != nil {
		return 0, fmt.Errorf("connect %s: %w", addr, err)
	}
	return socket, nil
}
