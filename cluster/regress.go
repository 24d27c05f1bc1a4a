package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Keys in Config.Log.
const (
	keyPasts   = "pasts"   // the starts of this node
	keyRegress = "regress" // that the disk went back, until the node has been taken back and was started since
)

// regressVersion is the version of both records.
const regressVersion = 1

type storedPasts struct {
	Version int    `json:"v"`
	Pasts   []past `json:"pasts"`
}

// regress is the note that this host's disk went back in time. It is on disk before anything is done about it.
type regress struct {
	Version int    `json:"v"`
	ID      string `json:"id"`   // of this one time
	Text    string `json:"text"` // for the operator
	// Term is that of the leader that has taken this node's vote, 0 while none has, and Index the newest entry that it had; then the
	// copy of the facts is dropped. Back says that the node takes part again, and Told that it has been at work since.
	Term  uint64 `json:"term,omitempty"`
	Index uint64 `json:"index,omitempty"`
	Back  bool   `json:"back,omitempty"`
	Told  bool   `json:"told,omitempty"`
}

const (
	// compareLimit bounds how long a start waits for what the others remember, and compareRest for the rest of them when one has
	// answered: a connection takes milliseconds, and a second if its first packet is lost (RFC 6298 section 2.1).
	compareLimit = 2 * time.Second
	compareRest  = 300 * time.Millisecond
	// compareAgain: hosts that boot together are not there at the same moment.
	compareAgain = 200 * time.Millisecond
)

// self is what this node knows about its own disk.
type self struct {
	key []byte // of marks

	mu      sync.Mutex
	pasts   []past
	saved   bool     // the last of them is on disk
	regress *regress // nil: the disk did not go back, as far as is known
	heard   bool     // somebody has said what he remembers
}

// beginPast writes down that this node starts, before anybody is told of it.
func (c *Cluster) beginPast(key ed25519.PrivateKey) error {
	var err error
	if c.self.key, err = derive(key.Seed(), labelMark, 32); err != nil {
		return err
	}
	if raw, ok := c.cfg.Log.Get(keyRegress); ok {
		r, err := decodeRegress(raw)
		if err != nil {
			return err
		}
		c.self.regress = &r
		c.tellRegress()
	}
	if c.cfg.Disk == nil {
		return nil
	}
	var stored storedPasts
	if raw, ok := c.cfg.Log.Get(keyPasts); ok {
		if err := json.Unmarshal(raw, &stored); err != nil || stored.Version != regressVersion {
			c.log.WithError(err).Warnf("cluster: %s of version %d cannot be read; begun anew", keyPasts, stored.Version)
			stored.Pasts = nil
		}
	}
	c.self.pasts = nextPast(stored.Pasts, randomNumber(), pointsOf(c.cfg.Disk()))
	if err := c.cfg.Log.Apply(pastsWrite(c.self.pasts)); err != nil {
		c.log.WithError(err).Warn("cluster: this start is not written down, and the others are not told how far this host's disk has come")
		return nil
	}
	c.self.saved = true
	return nil
}

func randomNumber() uint32 {
	var random [4]byte
	rand.Read(random[:]) // never fails (crypto/rand since Go 1.24)
	return binary.BigEndian.Uint32(random[:])
}

func pastsWrite(pasts []past) Write {
	raw, err := json.Marshal(storedPasts{regressVersion, pasts})
	if err != nil {
		panic(err) // records consist of what JSON has
	}
	return Write{Key: keyPasts, Value: raw}
}

func (r regress) write() Write {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err) // the same
	}
	return Write{Key: keyRegress, Value: raw}
}

func decodeRegress(raw []byte) (r regress, err error) {
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("%s: %w", keyRegress, err)
	}
	if r.Version != regressVersion {
		return r, fmt.Errorf("%s: %w: format %d, this node knows %d", keyRegress, errNewer, r.Version, regressVersion)
	}
	return r, nil
}

// tellRegress shows the alarm until the node has been taken back and was started once more.
func (c *Cluster) tellRegress() {
	r := *c.self.regress
	next := Write{Key: keyRegress}
	switch {
	case r.Told:
		c.self.regress = nil
	case r.Back:
		r.Told = true
		next = r.write()
		fallthrough
	default:
		c.alarms.hold(keyRegress, r.Text)
	}
	if !r.Back {
		return
	}
	if err := c.cfg.Log.Apply(next); err != nil {
		c.log.WithError(err).Warn("cluster: that the disk went back is told once more at the next start")
	}
}

// Regressed is an identifier of the last time that this host's disk was found to have gone back, while that is of concern: nothing
// that its stores do not know of is free. Empty: it is not known to have.
func (c *Cluster) Regressed() string {
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	if c.self.regress == nil {
		return ""
	}
	return c.self.regress.ID
}

// mark is how far this node has come, nil while nobody shall know.
func (c *Cluster) mark() []byte {
	if c.cfg.Disk == nil {
		return nil
	}
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	if !c.self.saved || c.self.regress != nil && !c.self.regress.Back {
		return nil
	}
	last := c.self.pasts[len(c.self.pasts)-1]
	return mark{last.Number, last.Random, pointsOf(c.cfg.Disk())}.encode(c.self.key)
}

// recalled: another node has said what it remembers of this one. nil: nothing.
func (c *Cluster) recalled(id string, raw []byte) {
	if c.cfg.Disk == nil || c.cluster() == "" {
		return
	}
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	c.self.heard = true
	if c.self.regress != nil && !c.self.regress.Back {
		return
	}
	m, err := openMark(c.self.key, raw)
	if err != nil { // nothing is remembered, or somebody makes it up
		c.gossip.recall.hears(id)
		return
	}
	stores := c.cfg.Disk() // after the mark: it only grows
	missing, older := lag(c.self.pasts, pointsOf(stores), m)
	if !older {
		c.gossip.recall.hears(id)
		return
	}
	if _, rival := c.gossip.contacts.rival(); rival {
		return // the other host has come further than this one, maybe: see belong
	}
	c.regressed(m, missingText(stores, missing))
}

// regressed writes down that the disk went back, in a line of starts that is above all that were before. The caller holds self.mu.
func (c *Cluster) regressed(m mark, missing string) {
	var random [8]byte
	rand.Read(random[:]) // never fails
	r := regress{Version: regressVersion, ID: fmt.Sprintf("%x", random), Text: fmt.Sprintf(
		"the disk of this host went back in time, as by a backup or a snapshot of a virtual machine, or it has lost writes: the others remember "+
			"more of it, and %s. What containers use is kept, and nothing else is given out of the address blocks that this host had; it votes again when "+
			"it has the facts of the cluster. Networks that were made since are unknown here until the engine is started again. "+
			"This ends with the next start of the plugin after that", missing)}
	pasts := pastBeyond(c.self.pasts, m, randomNumber(), pointsOf(c.cfg.Disk()))
	if err := c.cfg.Log.Apply(r.write(), pastsWrite(pasts)); err != nil {
		c.alarms.hold("disk", "the cluster's log cannot be written: "+err.Error())
		return // it is noticed again
	}
	c.log.WithField("start", m.number).Error("cluster: " + r.Text)
	c.self.pasts, c.self.regress = pasts, &r
	c.alarms.hold(keyRegress, r.Text)
	if c.life != nil { // Compare would have told in time
		c.beginAgain()
	}
}

// Compare asks the other nodes how far they remember this one's disk to have come, before anything is done with what is on it. Run
// does so itself if nobody has. It takes compareLimit at most, and tells whether anybody has answered, or nobody could: there is no
// other node. Who is silent now is listened to later.
func (c *Cluster) Compare(ctx context.Context) bool {
	defer c.doCompared()
	if c.cfg.Disk == nil || c.cluster() == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, compareLimit)
	defer cancel()
	for {
		asked := c.everybody(ctx)
		if len(asked) == 0 {
			return true
		}
		if c.greetSoon(ctx, asked) || !pause(ctx, compareAgain) {
			c.self.mu.Lock()
			defer c.self.mu.Unlock()
			return c.self.heard
		}
	}
}

func (c *Cluster) doCompared() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !closed(c.compared) {
		close(c.compared)
	}
}

// everybody is where other nodes are, by the facts and by JOIN.
func (c *Cluster) everybody(ctx context.Context) []reply {
	seen := map[string]bool{c.transport.local.String(): true}
	var all []reply
	for _, r := range c.known() {
		if !r.Forgotten && r.ID != c.id && !seen[r.at().String()] {
			seen[r.at().String()] = true
			all = append(all, reply{target: r.Name, addr: r.at()})
		}
	}
	for _, t := range c.targets {
		if addr, err := t.resolve(ctx, c.cfg.Advertise); err == nil && !seen[addr.String()] {
			seen[addr.String()] = true
			all = append(all, reply{target: t.String(), addr: addr})
		}
	}
	return all
}

// greetSoon greets all at once, and tells whether one has answered. It does not wait long for the others then.
func (c *Cluster) greetSoon(ctx context.Context, asked []reply) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := false
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, r := range asked {
		wg.Go(func() {
			if _, err := c.hello(ctx, r.addr); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !answered {
				answered = true
				time.AfterFunc(compareRest, cancel)
			}
		})
	}
	wg.Wait()
	return answered
}
