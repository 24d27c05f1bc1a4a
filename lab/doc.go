// Package lab makes several real Docker hosts on one Linux machine, for end-to-end tests and for trying things by hand.
//
// A host is a set of namespaces (network, mount, PID, UTS, IPC, cgroup) with a root file system of its own, in which
// Debian's own containerd and dockerd run. The hosts hang on a switch: a bridge in a network namespace of its own.
//
//	          switch: br0, 198.51.100.1, 2001:db8::1
//	        ┌─────────────┬─────────────┐
//	     host1         host2         host3        ports of the bridge
//	        │             │             │         (veth)
//	       eth0          eth0          eth0
//	198.51.100.11 198.51.100.12 198.51.100.13
//	2001:db8::11  2001:db8::12  2001:db8::13
//	dockerd       dockerd       dockerd
//
// A test says
//
//	l, err := lab.Start(ctx, lab.Config{Name: "ping", Hosts: 2, Engines: []string{"28.5"}})
//	defer l.Close()
//	out, err := l.Hosts[0].Docker(ctx, "run", "--rm", lab.Image, "ping", "-c1", "198.51.100.12")
//
// and a person says `lab up`, `lab exec host1 docker ps`, `lab down`.
//
// # What it leaves alone
//
// Nothing is made in the machine's own network or mount namespace: no link, no route, no rule, no mount. All of a
// host's mounts live in its mount namespace and all its processes in its PID namespace, so killing the first process
// of a host removes both. What remains outside are its cgroups (carrick-lab/NAME in each hierarchy) and its directory
// (DIR/labs/NAME); Close removes these too, and it may be called by another process than the one that called Start,
// since everything it needs to know is in that directory. Labs with different names do not meet.
//
// # How faithful it is
//
// dockerd starts with net.ipv4.ip_forward=0 and bridge-nf-call-*=0, as on a machine that has just booted: only then does
// it set the policy of FORWARD to DROP itself. containerd is a process of its own, as Debian's units run it, so it
// survives a dockerd that is killed. The hosts share the machine's kernel and so its modules and its clock.
//
// No image comes from a registry: every host has Image, a static busybox with ping of iputils and ip of iproute2.
package lab
