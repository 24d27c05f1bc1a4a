package main

import (
	"context"
	"maps"
	"slices"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
)

// A metric is what `carrick metrics` shows in the format of Prometheus.
type metric struct {
	Name    string   `json:"name"`
	Help    string   `json:"help"`
	Type    string   `json:"type"` // counter or gauge
	Samples []sample `json:"samples"`
}

type sample struct {
	Label string  `json:"label,omitempty"` // its only one, "": none
	Of    string  `json:"of,omitempty"`    // the value of the label
	Value float64 `json:"value"`
}

// warnMTU is the kind of the warning that the underlay has become smaller than a network; it is an alarm as well.
const warnMTU = "underlay-mtu"

// warnings are what makes networks between hosts slow; nothing without a cluster.
func (h *host) warnings() []kernel.Warning {
	if h.cluster == nil {
		return nil
	}
	u, err := h.underlay()
	if err != nil {
		return nil // which others say
	}
	return h.kernel.Slow(u.Link)
}

// warningTexts is what `carrick status` shows of them.
func (h *host) warningTexts() []string {
	var all []string
	for _, w := range h.warnings() {
		all = append(all, w.Text)
	}
	return all
}

// aboutDevice is all that is wrong with the device that carries the tunnels.
func (h *host) aboutDevice() []string { return append(h.narrow(), h.warningTexts()...) }

// Metrics is what `carrick metrics` shows.
func (h *host) Metrics(context.Context) (any, error) {
	all := append(h.hostMetrics(), h.networkMetrics()...)
	if h.cluster != nil {
		all = append(all, clusterMetrics(h.cluster.Status())...)
	}
	return all, nil
}

func gauge(name, help string, samples ...sample) metric { return metric{name, help, "gauge", samples} }
func counter(name, help string, samples ...sample) metric {
	return metric{name, help, "counter", samples}
}

func (h *host) hostMetrics() []metric {
	warned := map[string]float64{kernel.WarnGRO: 0, kernel.WarnOffload: 0, kernel.WarnRPS: 0, warnMTU: 0}
	for _, w := range h.warnings() {
		warned[w.Kind] = 1
	}
	if len(h.narrow()) > 0 {
		warned[warnMTU] = 1
	}
	stats := h.machine.Stats()
	repairs := map[string]float64{}
	for _, what := range kernel.Repairable() {
		repairs[what] = float64(stats.Repairs[what])
	}
	return []metric{
		gauge("carrick_info", "Which version runs.", sample{"version", version, 1}),
		gauge("carrick_alarms", "Sentences that carrick status calls an alarm, without those of the cluster.", sample{Value: float64(len(h.alarms()))}),
		gauge("carrick_warning", "What makes networks between hosts slow.", byLabel("kind", warned)...),
		counter("carrick_kernel_sets_total", "Changes of the kernel's state that were asked for.", sample{Value: float64(stats.Sets)}),
		counter("carrick_kernel_set_failures_total", "How many of them failed.", sample{Value: float64(stats.Failed)}),
		counter("carrick_kernel_set_seconds_total", "How long they took, without waiting.", sample{Value: stats.SetTime.Seconds()}),
		counter("carrick_kernel_repairs_total", "What others had changed and was changed back.", byLabel("what", repairs)...),
	}
}

// networkMetrics know networks by the first digits of their identifiers, as docker network ls shows them, and addresses by
// their subnets.
func (h *host) networkMetrics() []metric {
	local, remote, refused := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, n := range h.driver.Networks() {
		id := n.ID[:min(12, len(n.ID))]
		local[id], remote[id], refused[id] = float64(n.Local), float64(n.Remote), float64(n.Refused)
	}
	used, free, stranded := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, p := range h.ipam.Status() {
		subnet := p.Subnet.String()
		used[subnet], free[subnet], stranded[subnet] = float64(p.Used), float64(p.Free), float64(p.Stranded)
	}
	return []metric{
		gauge("carrick_used_addresses", "Addresses that this host has handed out.", byLabel("subnet", used)...),
		gauge("carrick_free_addresses", "Addresses that this host may hand out without asking anybody.", byLabel("subnet", free)...),
		gauge("carrick_stranded_addresses", "Addresses in blocks of hosts that do not answer.", byLabel("subnet", stranded)...),
		gauge("carrick_endpoints", "Endpoints of this host.", byLabel("network", local)...),
		gauge("carrick_remote_endpoints", "Endpoints of other hosts that this host knows.", byLabel("network", remote)...),
		gauge("carrick_refused_records", "What other hosts say of endpoints and is not believed.", byLabel("network", refused)...),
	}
}

func clusterMetrics(s cluster.Status) []metric {
	nodes := map[string]float64{"alive": 0, "silent": 0, "suspended": 0}
	for _, n := range s.Nodes {
		switch {
		case n.Suspended:
			nodes["suspended"]++
		case n.Alive || n.ID == s.Node.ID:
			nodes["alive"]++
		default:
			nodes["silent"]++
		}
	}
	return []metric{
		gauge("carrick_nodes", "Nodes of the cluster, this one included.", byLabel("state", nodes)...),
		gauge("carrick_leader_known", "Whether this host knows who leads the cluster.", sample{Value: number(s.Leader != "")}),
		gauge("carrick_quorum", "Whether new facts can be decided.", sample{Value: number(s.Quorum)}),
		counter("carrick_facts_total", "The number of the newest fact.", sample{Value: float64(s.Index)}),
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// byLabel is sorted, so that two looks can be compared.
func byLabel(label string, values map[string]float64) []sample {
	all := []sample{}
	for _, of := range slices.Sorted(maps.Keys(values)) {
		all = append(all, sample{label, of, values[of]})
	}
	return all
}
