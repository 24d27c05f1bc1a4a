package ledger

// Keep does everything that is due between this host and the others: it notes what is its own, answers who asks for an
// address, claims ahead, and gives back what is not needed.
func (l *Ledger) Keep(at Moment) Move {
	if !at.Joined {
		return done(nil)
	}
	var steps []func(Moment) Move
	pools := l.ordered()
	for _, p := range pools {
		if p.refresh(at); !p.noted {
			steps = append(steps, p.receive)
		}
		if len(p.given) > 0 {
			steps = append(steps, p.keepReceipts)
		}
		if len(p.excluded) > 0 {
			steps = append(steps, func(at Moment) Move { return l.takeBack(at, p) })
		}
	}
	for _, q := range l.questions(at) {
		steps = append(steps, func(at Moment) Move { return l.settleQuestion(at, q) })
	}
	for _, p := range pools {
		if p.mayClaim(at) {
			steps = append(steps, func(at Moment) Move { return l.claimAhead(at, p) })
		}
	}
	for _, p := range pools {
		if p.looked || len(p.given) > 0 {
			steps = append(steps, func(at Moment) Move { return l.handBack(at, p) })
		}
	}
	return inOrder(at, steps)
}
