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
// A store has an identity, which stands in every file, and each commit's checksum goes on from that of the one before: files,
// commits and pieces of them that belong to another store, another time or another order do not fit. After each commit the
// lock file is told which one it was, the mark. Only the first one of each Open is synced: it is always there, never ahead, and
// behind by more than one commit only after a power cut, which the mark's boot id tells.
//
// A record at the end of the newest journal that is incomplete is what a crash leaves behind, if it is after the mark: nobody
// was told that it is on disk, and it is cut off. Anything else that does not check out is damage. Damaged files are put into
// damaged-N, of which the last three are kept, and the store starts empty; what an empty store means is for its user to decide.
// Damage is told at every Open until something has been written since, so a crash in between does not hide it.
//
// Format version 1, which had neither identity nor mark, is read and written anew at once.
//
// What is not noticed: a directory that was put back as a whole, with its lock file; an older mark beside a journal that was
// cut, if the host was booted since, which is what a power cut leaves; a journal that was cut exactly between two commits, if
// the lock file is lost as well.
package store
