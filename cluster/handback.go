package cluster

// PlanHandBack gives blocks back that a node has given up. Those that the view does not show as that node's, or as granted anew
// since, are left alone: without any, nothing is to be done.
func PlanHandBack(v View, network string, blocks []Block) Txn {
	var txn Txn
	for _, b := range blocks {
		f, ok := v.Get(BlockKey(network, b.Prefix))
		now, err := decodeBlock(f)
		if ok && err == nil && now.Node == b.Node && now.Index <= b.Index {
			txn.If = append(txn.If, Cond{f.Key, v.Index()})
			txn.Then = append(txn.Then, Op{Key: f.Key})
		}
	}
	return txn
}

// PlanReclaim grants a block that a node has given up to the same node anew, so that whatever was proposed about the old grant
// cannot be written any more. Nothing is to be done where the old grant is not there any more.
func PlanReclaim(v View, network string, b Block) (Txn, error) {
	gone := PlanHandBack(v, network, []Block{b})
	if len(gone.Then) == 0 {
		return Txn{}, nil
	}
	_, txn, err := claimTxn(v, network, b.Prefix, b.Node)
	return txn, err
}
