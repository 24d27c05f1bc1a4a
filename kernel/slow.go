package kernel

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Warning is something about the host that makes the network slower than it could be. Kind is one of the Warn… constants.
type Warning struct {
	Kind string
	Text string // a sentence that says what to do
}

// The kinds of warnings about the device that carries the tunnels.
const (
	WarnGRO     = "gro-off"
	WarnOffload = "tunnel-offload-missing"
	WarnRPS     = "rps-off"
)

// Slow says what of a device of the host makes tunnels over it slow. What the kernel does not tell is no reason to warn.
func (k *Kernel) Slow(link string) []Warning {
	var all []Warning
	if on, err := k.features(link); err == nil {
		if !on["rx-gro"] {
			all = append(all, Warning{WarnGRO, fmt.Sprintf("%s: generic receive offload is off, and each packet between hosts is handled alone: "+
				"ethtool -K %s gro on", link, link)})
		}
		if !on["tx-udp_tnl-segmentation"] {
			all = append(all, Warning{WarnOffload, fmt.Sprintf("%s: packets in tunnels are cut up by the processor, since the device does not: "+
				"ethtool -K %s tx-udp_tnl-segmentation on, if it can", link, link)})
		}
	}
	if runtime.NumCPU() > 1 && oneQueue(os.DirFS("/sys/class/net"), link) {
		all = append(all, Warning{WarnRPS, fmt.Sprintf("%s: has one receive queue, and so one processor handles all that comes: "+
			"write a mask of processors to /sys/class/net/%s/queues/rx-0/rps_cpus", link, link)})
	}
	return all
}

// oneQueue says whether a card of its own (not a virtual device, for which its sender's processor works) has one receive queue
// that is not spread over processors. class is /sys/class/net.
func oneQueue(class fs.FS, link string) bool {
	if _, err := fs.Stat(class, path.Join(link, "device")); err != nil {
		return false
	}
	queues, err := fs.Glob(class, path.Join(link, "queues", "rx-*"))
	if err != nil || len(queues) != 1 {
		return false
	}
	mask, err := fs.ReadFile(class, path.Join(queues[0], "rps_cpus"))
	return err == nil && strings.Trim(string(mask), "0,\n") == ""
}

// The parts of ethtool's protocol that are needed (ethtool_netlink.h, Linux 5.6).
const (
	ethtoolFeaturesGet    = 11
	ethtoolFeaturesHeader = 1
	ethtoolFeaturesActive = 4
	ethtoolHeaderName     = 2
	ethtoolBitsetBits     = 3
	ethtoolBitName        = 2
)

// features are the names of those that are on for a device of the host.
func (k *Kernel) features(link string) (map[string]bool, error) {
	socket, err := nl.GetNetlinkSocketAt(k.host.fd, -1, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	limit := unix.Timeval{Sec: answerTime}
	if err := socket.SetReceiveTimeout(&limit); err != nil {
		return nil, err
	}
	ask := func(kind int, message *nl.Genlmsg, data *nl.RtAttr) ([]byte, error) {
		r := nl.NewNetlinkRequest(kind, 0)
		r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: socket}}
		r.AddData(message)
		r.AddData(data)
		answers, err := r.Execute(unix.NETLINK_GENERIC, 0)
		if err != nil || len(answers) == 0 || len(answers[0]) < nl.SizeofGenlmsg {
			return nil, fmt.Errorf("ethtool: no answer: %w", err)
		}
		return answers[0][nl.SizeofGenlmsg:], nil
	}
	family, err := ask(nl.GENL_ID_CTRL, &nl.Genlmsg{Command: nl.GENL_CTRL_CMD_GETFAMILY, Version: nl.GENL_CTRL_VERSION},
		attr(nl.GENL_CTRL_ATTR_FAMILY_NAME, nl.ZeroTerminated("ethtool")))
	if err != nil {
		return nil, err
	}
	id := valuesOf(family, nl.GENL_CTRL_ATTR_FAMILY_ID)
	if len(id) != 1 {
		return nil, unix.EOPNOTSUPP
	}
	header := attr(ethtoolFeaturesHeader|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(ethtoolHeaderName, nl.ZeroTerminated(link))
	answer, err := ask(int(binary.NativeEndian.Uint16(id[0])), &nl.Genlmsg{Command: ethtoolFeaturesGet, Version: 1}, header)
	if err != nil {
		return nil, err
	}
	on := make(map[string]bool)
	for _, active := range valuesOf(answer, ethtoolFeaturesActive) {
		for _, bits := range valuesOf(active, ethtoolBitsetBits) {
			for _, bit := range valuesOf(bits, 1) {
				for _, name := range valuesOf(bit, ethtoolBitName) {
					on[unix.ByteSliceToString(name)] = true
				}
			}
		}
	}
	return on, nil
}

// valuesOf are the values of the attributes of one kind.
func valuesOf(b []byte, kind uint16) (values [][]byte) {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		if a.Attr.Type&^unix.NLA_F_NESTED == kind {
			values = append(values, a.Value)
		}
	}
	return values
}
