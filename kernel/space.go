package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// answerTime is how long an answer of rtnetlink may take, in seconds. A request waits while others hold RTNL; deleting a
// VXLAN device with 100,000 entries took 0.18 s, a thousand veths one by one 20 s.
const answerTime = 60

// A space is a network namespace and the sockets that were opened in it.
type space struct {
	ns      NS
	fd      netns.NsHandle
	handle  *netlink.Handle // for what the library has a good call of
	sockets map[int]*nl.SocketHandle
	bulk    *bulk // nil: not yet opened
	ears    []*ear
	frames  int // socket that sends whole frames; 0: not yet opened
}

// openSpace takes fd over, even when it fails.
func openSpace(ns NS, fd netns.NsHandle) (*space, error) {
	s := &space{ns: ns, fd: fd}
	err := s.open()
	if err != nil {
		s.close()
		return nil, fmt.Errorf("namespace %s: netlink socket: %w", nsName(ns), err)
	}
	return s, nil
}

func (sp *space) open() error {
	var err error
	if sp.handle, err = netlink.NewHandleAt(sp.fd, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if err := sp.handle.SetSocketTimeout(answerTime * time.Second); err != nil {
		return err
	}
	sp.sockets = make(map[int]*nl.SocketHandle)
	if err := sp.openSocket(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	// Strict dumps are filtered by the kernel (Linux 4.20). Older ones refuse the option, and send more.
	_ = unix.SetsockoptInt(sp.sockets[unix.NETLINK_ROUTE].Socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	err = sp.openSocket(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil // a kernel without nfnetlink: then there are no rules
	}
	return err
}

func (sp *space) openSocket(protocol int) error {
	socket, err := nl.GetNetlinkSocketAt(sp.fd, netns.None(), protocol)
	if err != nil {
		return err
	}
	sp.sockets[protocol] = &nl.SocketHandle{Socket: socket}
	_ = socket.SetExtAck(true) // errors with a sentence, Linux 4.12
	limit := unix.Timeval{Sec: answerTime}
	return errors.Join(socket.SetSendTimeout(&limit), socket.SetReceiveTimeout(&limit))
}

func (sp *space) close() {
	if sp == nil {
		return
	}
	if sp.handle != nil {
		sp.handle.Close()
	}
	for _, socket := range sp.sockets {
		socket.Close()
	}
	sp.stopListening()
	sp.bulk.close()
	if sp.frames != 0 {
		_ = unix.Close(sp.frames)
		sp.frames = 0
	}
	if sp.fd.IsOpen() {
		_ = sp.fd.Close()
	}
}

func (sp *space) request(kind, flags int, data ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags)
	r.Sockets = sp.sockets
	for _, d := range data {
		r.AddData(d)
	}
	return r
}

// do sends a request that changes something.
func (sp *space) do(kind, flags int, data ...nl.NetlinkRequestData) error {
	return sp.step(requestKind(kind), func() error {
		_, err := sp.request(kind, flags|unix.NLM_F_ACK, data...).Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// dumpTries bounds the repetition of a dump that others disturb. Each costs about a millisecond for a thousand links; who
// changes something within every one of so many does not stop.
const dumpTries = 50

// dump repeats a dump until nothing changed while it was read (NLM_F_DUMP_INTR).
func dump[T any](read func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		got, err := read()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			return got, err
		}
	}
}

// list is a dump by a request of our own.
func (sp *space) list(kind int, answer uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	return dump(func() ([][]byte, error) {
		return sp.request(kind, unix.NLM_F_DUMP, data...).Execute(unix.NETLINK_ROUTE, answer)
	})
}

// inside runs f on a thread that is in the namespace, and waits for it.
func inside(fd netns.NsHandle, f func() error) error {
	return elsewhere(func() error {
		if err := netns.Set(fd); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return nil
	}, f)
}

// fresh runs f on a thread that is in a new network namespace.
func fresh(f func() error) error {
	return elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare --net: %w", err)
		}
		return nil
	}, f)
}

// elsewhere lets a thread enter another network namespace, runs f there, brings the thread back and waits for all that. One
// that cannot be brought back is thrown away: the runtime ends a thread whose goroutine ends while locked to it. That is not
// the way for all of them: the process's first thread is never ended, and would keep the namespace for as long as we run.
func elsewhere(enter, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		old, err := netns.GetFromPath(ownNS)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("network namespace of this thread: %w", err)
			return
		}
		defer old.Close()
		if err := enter(); err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		err = f()
		if netns.Set(old) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
