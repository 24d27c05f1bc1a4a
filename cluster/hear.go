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
		if g.table.attends(key.network) && v.newer(g.table.version(key)) {
			asks[key.origin] = append(asks[key.origin], key.network)
		}
		if v.newer(g.seen[key]) {
			g.see(key, v)
			g.pass(hint{key, v})
		}
	}
	g.mu.Unlock()
	for origin, networks := range asks {
		g.pulls.ask(origin, nil, networks...)
	}
}

// see remembers that a hint was passed on. The caller holds mu.
func (g *gossip) see(key rowKey, v version) {
	for old := range g.seen {
		if len(g.seen) < maxSeen {
			break
		}
		delete(g.seen, old) // any
	}
	g.seen[key] = v
}
