package store

// Position is how far a store has come. Of two positions with one ID, the one with fewer commits is the older state.
type Position struct {
	ID      [16]byte // another one after the store was begun anew; zero: files of an older version, that have none
	Commits uint64   // that were on disk when they were acknowledged
}

// Position never names a commit that a crash could still take away. It does not wait for the disk.
func (s *Store) Position() Position {
	if p := s.reached.Load(); p != nil {
		return *p
	}
	return Position{}
}

// reach is called when everything up to the last commit is on disk.
func (s *Store) reach() { s.reached.Store(&Position{ID: s.id, Commits: s.seq}) }
