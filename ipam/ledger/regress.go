package ledger

import (
	"fmt"
	"iter"

	"github.com/carricknet/carrick/store"
)

// keyRegress is the key of the record of the last time that the store was found to be an older one.
const keyRegress = "regress"

type regressRecord struct {
	Version int    `json:"v"`
	ID      string `json:"id"`
}

func (r regressRecord) version() int { return r.Version }

// Regressed returns what has to be written when the store is found to be an older copy of itself, before a ledger is made of it: what it
// says was handed out in networks of the cluster is not what was handed out. So it becomes like a store that was damaged, but for
// the pools, which Docker knows by their names: they have to be bound again, and until then all their blocks are frozen. Nothing is
// to be written for a time that is known already.
func Regressed(read func(prefix string) iter.Seq2[string, []byte], id string) ([]store.Write, error) {
	known := false
	var all []store.Write
	var shared []poolRecord
	err := each(read(keyRegress), func(rec regressRecord) { known = known || rec.ID == id })
	if err == nil {
		err = each(read(belowPool), func(rec poolRecord) {
			if rec.Shared != "" {
				shared = append(shared, rec)
			}
		})
	}
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	if known {
		return nil, nil
	}
	for _, rec := range shared {
		rec.Since, rec.Frozen = unsettled, unsettled
		all = append(all, putPool(rec))
		for _, below := range []string{belowLease, belowRest, belowNext, belowCarve, belowBlock} {
			for key := range read(below + rec.ID + "/") {
				all = append(all, deletion(key))
			}
		}
	}
	return append(all, Damaged(), put(keyRegress, regressRecord{recordVersion, id})), nil
}
