// Package store keeps a map on disk so that nothing acknowledged is ever lost or silently changed: what must survive a
// kill, a power cut, a full disk and a flipped bit.
//
// A directory holds generations of two kinds of files:
//
//	journal-N   the writes since generation N began, one checksummed record per commit, appended and fsynced
//	snapshot-N  the whole map at the moment journal-N began
//
// The state is the newest readable snapshot and every journal from it on. A new generation first gets its journal and then
// its snapshot, each written to a temporary name, fsynced, renamed, and the directory fsynced; only then are the files that
// are older than the snapshot before it removed. So there are always two ways to the same state, and a damaged snapshot
// costs nothing.
//
// A record at the end of the newest journal that is incomplete is what a crash leaves behind: nobody was told that it is on
// disk, and it is cut off. Anything else that does not check out is damage. Damaged files are put into damaged-N and the
// store starts empty; what an empty store means is for its user to decide. Damage is told at every Open until something
// has been written since, so a crash in between does not hide it.
//
// What is not noticed: a journal that was cut, from outside, exactly where its last commits begin. It looks like a crash.
package store
