package ledger

// Keep does everything that is due between this host and the others: it notes what is its own, answers who asks for an
// address, and claims ahead.
func (l *Ledger) Keep(at Moment) Move {
	if !at.Joined {
		return done(nil)
	}
	var steps []func(Moment) Move
	pools := l.ordered()
	for _, p := range pools {
		steps = append(steps, p.receive, func(at Moment) Move { return l.takeBack(at, p) })
	}
	for _, q := range l.questions(at) {
		steps = append(steps, func(at Moment) Move { return l.settleQuestion(at, q) })
	}
	for _, p := range pools {
		steps = append(steps, func(at Moment) Move { return l.claimAhead(at, p) })
	}
	return inOrder(at, steps)
}
