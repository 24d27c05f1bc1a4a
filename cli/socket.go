package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultSocketDir is where dockerd keeps the sockets of plugins, one directory for each managed one. Only root may
	// look into it.
	defaultSocketDir = "/run/docker/plugins"
	// socketName is that of the plugin's manifest, config.json.
	socketName = "carrick.sock"
	// dialLimit is how long a socket may take to answer: the kernel does it for a living process.
	dialLimit = 2 * time.Second
	// shortID is how much of an identifier is shown, as Docker does.
	shortID = 12
)

// socket is that of one plugin.
type socket struct {
	id   string // "": not in a directory of its own, as inside the plugin's own container
	path string
}

func (s socket) name() string {
	if s.id == "" {
		return s.path
	}
	return short(s.id)
}

// find returns the socket of the plugin that is meant.
func (s *session) find(ctx context.Context) (socket, error) {
	all, err := sockets(s.SocketDir)
	if err != nil {
		return socket{}, err
	}
	if len(all) == 0 {
		return socket{}, fmt.Errorf("there is no socket of Carrick's below %s: is the plugin installed and enabled? `docker plugin ls` tells", s.SocketDir)
	}
	if s.plugin != "" {
		if all, err = withID(all, s.plugin); err != nil {
			return socket{}, err
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	var answering []socket
	for _, found := range all {
		conn, err := dial(ctx, found)
		if err != nil {
			continue // a disabled plugin may leave its socket behind
		}
		answering = append(answering, found)
		if err := conn.Close(); err != nil {
			return socket{}, err
		}
	}
	switch len(answering) {
	case 0:
		return socket{}, fmt.Errorf("none of the plugins %s answers: are they enabled? `docker plugin ls` tells", list(all))
	case 1:
		return answering[0], nil
	default:
		return socket{}, usageError{fmt.Sprintf("several plugins answer, %s: say which with %s", list(answering), flagPlugin)}
	}
}

// sockets lists what looks like a socket of ours.
func sockets(dir string) ([]socket, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("only root may look into %s: try sudo", dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: is Docker running here?", dir)
	case err != nil:
		return nil, fmt.Errorf("looking for the plugin: %w", err)
	}
	var all []socket
	for _, e := range entries {
		found := socket{id: e.Name(), path: filepath.Join(dir, e.Name(), socketName)}
		if e.Name() == socketName {
			found = socket{path: filepath.Join(dir, socketName)}
		}
		if info, err := os.Lstat(found.path); err == nil && info.Mode().Type() == fs.ModeSocket {
			all = append(all, found)
		}
	}
	return all, nil
}

func withID(all []socket, id string) ([]socket, error) {
	var meant []socket
	for _, s := range all {
		if strings.HasPrefix(s.id, id) {
			meant = append(meant, s)
		}
	}
	if len(meant) == 0 {
		return nil, usageError{fmt.Sprintf("no plugin's ID begins with %q; there are %s", id, list(all))}
	}
	return meant, nil
}

func list(all []socket) string {
	var names []string
	for _, s := range all {
		names = append(names, s.name())
	}
	return strings.Join(names, ", ")
}

// dial opens a connection, or says why there is none.
func dial(ctx context.Context, s socket) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", s.path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("plugin %s does not run: is it enabled? `docker plugin ls` tells", s.name())
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("only root may use %s: try sudo", s.path)
	default:
		return nil, fmt.Errorf("plugin %s does not answer: %w", s.name(), err)
	}
}
