// Package e2e proves, on real Docker engines in the lab, what the plugin promises: three hosts, each scenario a sentence.
//
// Everything but this file has the build tag e2e, since it needs root, the plugin in build/plugin (`make plugin`) and
// some thirty minutes. The environment's CARRICK_ENGINES names the engines, separated by commas; mix is hosts of which each
// has another one. CARRICK_SOAK=1 makes scenarios take long (scale_test.go), CARRICK_SEED repeats their random numbers.
// One scenario runs with
//
//	go test -tags e2e ./e2e -v -run 'TestScenarios/28.5/APartitionHeals'
//
// The hosts are shared: a scenario finds three hosts whose plugins form a cluster with a quorum, without networks or
// containers, and must leave them so, which is checked after each one by comparing dumps of everything the kernel holds.
// Hosts that a failed scenario has left otherwise are thrown away.
package e2e
