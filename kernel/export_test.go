package kernel

// Plan is what Set would do, as commands.
func (k *Kernel) Plan(owner string, want State) ([]string, error) {
	<-k.turn
	defer k.unlock()
	if err := k.prepareShared(want.needs(Shared)); err != nil {
		return nil, err
	}
	_, ops, err := k.plan(owner, want)
	lines := make([]string, len(ops))
	for i, o := range ops {
		lines[i] = o.String()
	}
	return lines, err
}

// SetPart does the first n requests of a Set, as one that is killed would.
func (k *Kernel) SetPart(owner string, want State, n int) error {
	<-k.turn
	defer k.unlock()
	if err := k.prepareShared(want.needs(Shared)); err != nil {
		return err
	}
	defer k.forget()
	s, ops, err := k.plan(owner, want)
	if err != nil {
		return err
	}
	for _, o := range ops[:n] {
		if err := o.apply(s); err != nil {
			return err
		}
	}
	return nil
}

// Busy keeps every Set waiting until release is called.
func (k *Kernel) Busy() (release func()) {
	<-k.turn
	return k.unlock
}
