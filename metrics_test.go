package main

import (
	"regexp"
	"testing"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
)

// Names and types are as Prometheus wants them, each once, and the figures are those of the host.
func TestMetrics(t *testing.T) {
	e := engines(t, &clustertest.Cluster{}, 1)[0]
	net, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
	e.must(err)
	_, err = e.run(net)
	e.must(err)
	all := append(e.host.hostMetrics(), e.host.networkMetrics()...)
	status := cluster.Status{Leader: "a", Nodes: []cluster.Node{{ID: "a", Alive: true}, {ID: "b"}, {ID: "c", Suspended: true}}}
	all = append(all, clusterMetrics(status)...)
	values := map[string]float64{}
	for _, m := range all {
		if !regexp.MustCompile(`^carrick_[a-z_]+$`).MatchString(m.Name) || m.Help == "" {
			t.Errorf("%+v", m)
		}
		if total := regexp.MustCompile(`_total$`).MatchString(m.Name); total != (m.Type == "counter") {
			t.Errorf("%s is a %s", m.Name, m.Type)
		}
		for _, s := range m.Samples {
			key := m.Name + " " + s.Of
			if _, twice := values[key]; twice {
				t.Errorf("%s is there twice", key)
			}
			if m.Name == "carrick_endpoints" || m.Name == "carrick_remote_endpoints" {
				key = m.Name
			}
			values[key] = s.Value
		}
	}
	for key, want := range map[string]float64{
		"carrick_used_addresses 10.1.0.0/24": 1, "carrick_stranded_addresses 10.1.0.0/24": 0, "carrick_endpoints": 1, "carrick_remote_endpoints": 0, "carrick_warning gro-off": 0, "carrick_kernel_repairs_total link": 0,
		"carrick_nodes alive": 1, "carrick_nodes silent": 1, "carrick_nodes suspended": 1, "carrick_leader_known ": 1, "carrick_quorum ": 0,
	} {
		if got, ok := values[key]; !ok || got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	if values["carrick_kernel_sets_total "] < 2 {
		t.Errorf("the network and the endpoint are not counted: %v", values)
	}
}
