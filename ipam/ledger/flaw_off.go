//go:build !flaws

package ledger

// flawed is never true, and the compiler leaves out what depends on it.
func flawed(flaw) bool { return false }
