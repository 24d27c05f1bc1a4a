//go:build crash

package crash

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
)

type object map[string]any

// refusal is an answer that is an error.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

// call is one request on the plugin's socket, as engines send them; without a body if that is nil.
func (h *host) call(method string, body object) (object, error) {
	var raw []byte
	if body != nil {
		var err error
		raw, err = json.Marshal(body)
		h.must(err)
	}
	conn, err := net.Dial("unix", h.path("run/docker/plugins/carrick.sock"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, len(raw), raw)
	if err != nil {
		return nil, err
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	head, text, whole := strings.Cut(string(all), "\r\n\r\n")
	if !whole {
		return nil, io.ErrUnexpectedEOF
	}
	answer := object{}
	if strings.HasPrefix(text, "[") {
		text = `{"list":` + text + `}`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil && text != "null\n" {
		return nil, fmt.Errorf("%s: %w: %q", method, err, all)
	}
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		return nil, refusal{fmt.Sprintf("%s: %v", method, answer["Err"])}
	}
	return answer, nil
}

// engine plays a Docker engine of a family: 20, 28 or 29, which call differently (contract of package main's tests). What a
// killed plugin leaves it with is in Kill.
type engine struct {
	*host
	family   int
	kill     Kill
	at       int      // calls so far
	counted  []target // what each call has passed, if nothing was to be killed
	happened outcome
	states   []state // after each unit without a kill, and before the first
	now      int     // the unit

	ids       *int // of the host: none is ever given again
	nets      map[string]*dockerNet
	running   map[string]*container
	asked     map[netip.Addr]bool // by name
	names     map[string]string   // what differs from one run to the next: identifiers and addresses, by what they are
	unmade    string              // a network that is asked for again
	abandoned []string            // of those, what the engine has given up without being able to say so
}

type pool struct {
	id, prefix, gateway string
	aux                 []string
}

// subnet is what a user says of one, each "" or nil if nothing.
type subnet struct {
	prefix, within, gateway string
	aux                     []string
}

type dockerNet struct {
	id       string
	subnets  []subnet
	ipam     object // --ipam-opt
	options  object // -o
	internal bool
	pools    []pool
}

type container struct {
	net       *dockerNet
	id, mac   string
	wish      []string // --ip and --ip6
	addresses []string
}

func (e *engine) id() string {
	*e.ids++
	return fmt.Sprintf("%012x%052x", *e.ids, *e.ids)
}

func isV6(s string) bool { return strings.Contains(s, ":") }

func bare(s string) string { return netip.MustParsePrefix(s).Addr().String() }

const space = "carrick"

// create is `docker network create`.
func (e *engine) create(name string, n dockerNet) error {
	made := &n
	made.id, made.pools = cmp.Or(e.unmade, e.id()), nil
	e.unmade = ""
	options := object{"com.docker.network.generic": n.options, "com.docker.network.enable_ipv6": false}
	if n.internal {
		options["com.docker.network.internal"] = true
	}
	for _, s := range n.subnets {
		if isV6(s.prefix) {
			options["com.docker.network.enable_ipv6"] = true
		}
	}
	noGateway := false
	if e.family >= 28 {
		skip, err := e.ask("NetworkDriver.GwAllocCheck", object{"Options": options})
		if err != nil {
			return err
		}
		noGateway = skip["SkipIPv4"] == true
	}
	if _, err := e.ask("IpamDriver.GetDefaultAddressSpaces", nil); err != nil {
		return err
	}
	data := map[bool][]object{}
	for i, s := range n.subnets {
		if err := e.pool(made, s, noGateway); err != nil {
			for j, p := range made.pools { // of the family that failed only the pools go back
				if isV6(n.subnets[j].prefix) == isV6(n.subnets[i].prefix) {
					e.tell("IpamDriver.ReleasePool", object{"PoolID": p.id})
				} else {
					e.releasePool(p)
				}
			}
			return err
		}
		p := made.pools[i]
		d := object{"AddressSpace": space, "Pool": p.prefix}
		if p.gateway != "" {
			d["Gateway"] = p.gateway
		}
		aux := object{}
		for k, a := range p.aux {
			aux[fmt.Sprint("aux", k)] = a
		}
		d["AuxAddresses"] = aux
		data[isV6(p.prefix)] = append(data[isV6(p.prefix)], d)
	}
	_, err := e.ask("NetworkDriver.CreateNetwork", object{
		"NetworkID": made.id, "IPv4Data": data[false], "IPv6Data": data[true], "Options": options,
	})
	chosen := func(s subnet) bool { return s.prefix == anySubnet4 || s.prefix == anySubnet6 } // then the next one is another
	if errors.Is(err, errAgain) && !slices.ContainsFunc(n.subnets, chosen) {
		e.unmade = made.id
		return err
	}
	if err != nil {
		for _, p := range made.pools {
			e.releasePool(p)
		}
		e.removeLost(made)
		return err
	}
	e.nets[name] = made
	e.names[made.id] = "net-" + name
	for i, p := range made.pools {
		if within := n.subnets[i].within; within != "" {
			e.names[within] = "range-" + name
		}
		if p.gateway != "" {
			e.names[bare(p.gateway)] = fmt.Sprintf("gateway-%s-%v", name, isV6(p.prefix))
		}
		e.names[p.prefix] = fmt.Sprintf("subnet-%s-%v", name, isV6(p.prefix))
	}
	return nil
}

// pool asks for one subnet and what is never given out of it.
func (e *engine) pool(n *dockerNet, s subnet, noGateway bool) error {
	want := s.prefix
	if want == anySubnet4 || want == anySubnet6 {
		want = ""
	}
	got, err := e.ask("IpamDriver.RequestPool", object{
		"AddressSpace": space, "Pool": want, "SubPool": s.within, "Options": n.ipam, "V6": isV6(s.prefix),
	})
	if err != nil {
		return err
	}
	n.pools = append(n.pools, pool{id: got["PoolID"].(string), prefix: got["Pool"].(string)})
	p := &n.pools[len(n.pools)-1]
	if !noGateway || s.gateway != "" {
		got, err = e.ask("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": s.gateway,
			"Options": object{"RequestAddressType": "com.docker.network.gateway"}})
		if err != nil {
			return err
		}
		p.gateway = got["Address"].(string)
	}
	for _, a := range s.aux {
		got, err := e.ask("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": a, "Options": nil})
		if err != nil {
			return err
		}
		p.aux = append(p.aux, got["Address"].(string))
	}
	return nil
}

// What subnet.prefix says where the plugin chooses.
const anySubnet4, anySubnet6 = "any", "any:"

func (e *engine) releasePool(p pool) {
	if p.gateway != "" {
		e.tell("IpamDriver.ReleaseAddress", object{"PoolID": p.id, "Address": bare(p.gateway)})
	}
	for _, a := range p.aux {
		e.tell("IpamDriver.ReleaseAddress", object{"PoolID": p.id, "Address": bare(a)})
	}
	e.tell("IpamDriver.ReleasePool", object{"PoolID": p.id})
}

// run is `docker run` or `docker start`.
func (e *engine) run(name, network string, wish ...string) error {
	n := e.nets[network]
	c := &container{net: n, id: e.id(), wish: wish}
	c.mac = fmt.Sprintf("02:42:ac:%02x:%02x:%02x", *e.ids>>16&0xff, *e.ids>>8&0xff, *e.ids&0xff)
	options := object{"com.docker.network.endpoint.macaddress": c.mac}
	if e.family >= 29 {
		options["com.docker.network.endpoint.name"] = "container-" + name
	}
	given := object{"Address": "", "AddressIPv6": "", "MacAddress": c.mac}
	for i, p := range n.pools {
		want := ""
		if len(wish) > i {
			want = e.unasked(wish[i])
		}
		got, err := e.ask("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": want, "Options": options})
		if err != nil { // that of the family before leaks
			e.abandon(c.mac)
			return err
		}
		c.addresses = append(c.addresses, got["Address"].(string))
		field := "Address"
		if isV6(p.prefix) {
			field = "AddressIPv6"
		}
		given[field] = got["Address"]
	}
	ref := object{"NetworkID": n.id, "EndpointID": c.id}
	_, err := e.ask("NetworkDriver.CreateEndpoint", object{"NetworkID": n.id, "EndpointID": c.id, "Interface": given, "Options": object{}})
	if err != nil {
		e.abandon(c.id, c.mac)
		e.releaseAll(c)
		return err
	}
	join, err := e.ask("NetworkDriver.Join", object{"NetworkID": n.id, "EndpointID": c.id, "SandboxKey": "/var/run/docker/netns/1", "Options": object{}})
	if err != nil {
		if e.family >= 29 {
			e.tell("NetworkDriver.Leave", ref)
		}
		e.forget(c)
		return err
	}
	if link := linkOf(join); link != "" {
		e.take(link)
	}
	e.tell("NetworkDriver.EndpointOperInfo", ref)
	e.running[name] = c
	e.names[c.id], e.names[c.mac] = "endpoint-"+name, "mac-"+name
	for _, a := range c.addresses {
		e.names[bare(a)] = fmt.Sprintf("address-%s-%v", name, isV6(a))
	}
	return nil
}

// unasked is an address that is asked for by name. After a kill it is one that was not asked for before: the old one is kept for the
// container that the plugin has not heard the end of, for up to two minutes.
func (e *engine) unasked(address string) string {
	for a := netip.MustParseAddr(address); ; a = a.Next() {
		if !e.happened.killed || !e.asked[a] {
			e.asked[a] = true
			return a.String()
		}
	}
}

// linkOf is the device that Join has named.
func linkOf(join object) string {
	name, _ := join["InterfaceName"].(map[string]any)
	link, _ := name["SrcName"].(string)
	return link
}

func (e *engine) releaseAll(c *container) {
	for i, a := range c.addresses {
		e.tell("IpamDriver.ReleaseAddress", object{"PoolID": c.net.pools[i].id, "Address": bare(a)})
	}
}

// forget is the second half of the end of a container.
func (e *engine) forget(c *container) {
	if !e.tell("NetworkDriver.DeleteEndpoint", object{"NetworkID": c.net.id, "EndpointID": c.id}) {
		e.abandon(c.id, c.mac)
	}
	e.releaseAll(c)
}

// stop is `docker stop`, and what an engine that was killed does of a container that it takes for dead.
func (e *engine) stop(name string) error {
	c := e.running[name]
	e.tell("NetworkDriver.Leave", object{"NetworkID": c.net.id, "EndpointID": c.id})
	if link := "ckc" + c.id[:12]; e.hasLink(link) {
		e.giveBack(link)
	}
	e.forget(c)
	delete(e.running, name)
	return nil
}

// remove is `docker network rm`. A network that the plugin has not heard of the end of is removed by an operator.
func (e *engine) remove(name string) error {
	n := e.nets[name]
	for _, p := range n.pools {
		e.releasePool(p)
	}
	if !e.tell("NetworkDriver.DeleteNetwork", object{"NetworkID": n.id}) {
		e.removeLost(n)
	}
	delete(e.nets, name)
	return nil
}

// removeLost is `carrick network rm`: an engine that got no answer forgets a network, and the plugin does not hear of it.
func (e *engine) removeLost(n *dockerNet) {
	got, err := e.call("Carrick.Networks", object{})
	e.must(err)
	if !strings.Contains(fmt.Sprint(got), n.id) {
		return
	}
	e.happened.lost = true
	_, err = e.call("Carrick.RemoveNetwork", object{"network": n.id})
	e.must(err)
}

// replay is the start of an engine that asks the pools for all that it knows: over a live restore its containers run on.
func (e *engine) replay(live bool) error {
	for _, method := range []string{"NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities"} {
		if _, err := e.ask(method, nil); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(e.nets) {
		n := e.nets[name]
		for i, p := range n.pools {
			e.tell("IpamDriver.RequestPool", object{
				"AddressSpace": space, "Pool": p.prefix, "SubPool": n.subnets[i].within, "Options": n.ipam, "V6": isV6(p.prefix),
			})
			again := func(address string, options object) {
				e.tell("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": bare(address), "Options": options})
			}
			if p.gateway != "" {
				again(p.gateway, object{"RequestAddressType": "com.docker.network.gateway"})
			}
			for _, a := range p.aux {
				again(a, nil)
			}
			for _, c := range sortedKeys(e.running) {
				if e.running[c].net == n {
					again(e.running[c].addresses[i], nil)
				}
			}
		}
	}
	for _, name := range sortedKeys(e.running) {
		if live {
			c := e.running[name]
			e.tell("NetworkDriver.EndpointOperInfo", object{"NetworkID": c.net.id, "EndpointID": c.id})
			continue
		}
		if err := e.stop(name); err != nil {
			return err
		}
	}
	return nil
}
