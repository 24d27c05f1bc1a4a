package cluster

import "context"

// receive puts hints where doWork finds them.
func (g *gossip) receive(hints []hint) {
	g.queueMu.Lock()
	for _, h := range hints {
		if v, ok := g.inbox[h.rowKey]; h.newer(v) && (ok || len(g.inbox) < maxSeen) {
			g.inbox[h.rowKey] = h.version
		}
	}
	g.queueMu.Unlock()
	poke(g.work)
}

// doWork looks at hints that have come in, and asks nodes that have joined for their rows.
func (g *gossip) doWork(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.news:
			g.onChange()
			continue
		case <-g.work:
		}
		g.hear(g.takeInbox())
		for _, id := range g.contacts.takeUnasked() {
			g.mu.Lock()
			networks := g.table.networks()
			g.mu.Unlock()
			g.pulls.ask(id, nil, networks...)
		}
	}
}

func (g *gossip) takeInbox() map[rowKey]version {
	g.queueMu.Lock()
	defer g.queueMu.Unlock()
	hints := g.inbox
	g.inbox = map[rowKey]version{}
	return hints
}

// hear passes new hints on, and pulls what this node attends and does not have. Anybody with the key can say anything in
// a hint; the worst that comes of a false one is a question to the origin.
func (g *gossip) hear(hints map[rowKey]version) {
	asks := map[string][]string{}
	g.mu.Lock()
	for key, v := range hints {
		if key.origin == g.cfg.id {
			continue
		}
		isNew := g.seen.see(key, v)
		asks[key.origin] = append(asks[key.origin], g.behind(key, v, isNew)...)
		if isNew {
			g.pass(hint{key, v})
		}
	}
	g.mu.Unlock()
	for origin, networks := range asks {
		g.pulls.ask(origin, nil, networks...)
	}
}

// behind lists the networks that a hint is about and of which this node has an older version. The caller holds mu.
func (g *gossip) behind(key rowKey, v version, isNew bool) []string {
	if key.network != everyNetwork {
		if g.table.attends(key.network) && v.newer(g.table.version(key)) {
			return []string{key.network}
		}
		return nil
	}
	if !isNew { // rows that have not changed stay older than it: it is followed once
		return nil
	}
	var networks []string
	for _, network := range g.table.networks() {
		if v.newer(g.table.version(rowKey{network, key.origin})) {
			networks = append(networks, network)
		}
	}
	return networks
}

// passed is the newest hint of each row that was passed on. What is forgotten of it is the oldest: a hint that is still on
// its way would otherwise be new for ever to one or another.
type passed struct{ now, before map[rowKey]version }

// see tells whether a hint is newer than any that was seen, and remembers it.
func (p *passed) see(key rowKey, v version) bool {
	old, ok := p.now[key]
	if !ok {
		old = p.before[key]
	}
	if !v.newer(old) {
		return false
	}
	if !ok && len(p.now) >= maxSeen || p.now == nil {
		p.before, p.now = p.now, map[rowKey]version{}
	}
	p.now[key] = v
	return true
}
