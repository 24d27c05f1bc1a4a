# Prints all the kernel holds for the host it runs on, each section under a line "@@ where: what".
# Programs that a kernel has no use for (ip xfrm, bridge mdb) fail; they then have nothing to show.

section() {
	echo "@@ $where: $1"
	shift
	$enter "$@" 2>/dev/null || true
}

# grep reads them all in one process; one that may not be read (stable_secret) it leaves out.
values='cd /proc/sys/net && grep -s . ipv4/ip_forward bridge/* ipv4/conf/all/* ipv4/conf/default/* ipv4/conf/eth0/* \
	ipv6/conf/all/* ipv6/conf/default/* ipv6/conf/eth0/*'

netns() {
	section link ip -d -o link show
	section addr ip -o addr show
	section "route ipv4" ip -4 -o route show table all
	section "route ipv6" ip -6 -o route show table all
	section "rule ipv4" ip -4 rule show
	section "rule ipv6" ip -6 rule show
	section neigh ip -o neigh show nud all
	section "neigh proxy" ip -o neigh show proxy
	section fdb bridge fdb show
	section mdb bridge mdb show
	section qdisc tc qdisc show
	section "xfrm state" ip -o xfrm state
	section "xfrm policy" ip -o xfrm policy
	section iptables iptables-save
	section ip6tables ip6tables-save
	section "iptables legacy" sh -c '[ ! -s /proc/net/ip_tables_names ] || iptables-legacy-save'
	section "ip6tables legacy" sh -c '[ ! -s /proc/net/ip6_tables_names ] || ip6tables-legacy-save'
	section nft nft -s list ruleset
	section listen ss -H -l -n -t -u
	section sysctl sh -c "$values"
}

where=host enter=
netns
section mount cat /proc/self/mountinfo

# Every other network namespace once: by the first path it is pinned at, else by the program that is in it.
seen=" $(readlink /proc/self/ns/net) "
sort -k 5,5 /proc/self/mountinfo | while read -r _ _ _ ns at _; do
	case $ns in net:*) ;; *) continue ;; esac
	case $seen in *" $ns "*) continue ;; esac
	seen="$seen$ns "
	where=$at enter="nsenter --net=$at --"
	netns
done
pinned=" $(readlink /proc/self/ns/net) $(grep -o 'net:\[[0-9]*\]' /proc/self/mountinfo | sort -u | tr '\n' ' ')"
for p in /proc/[0-9]*; do
	ns=$(readlink "$p/ns/net") || continue
	case $pinned in *" $ns "*) continue ;; esac
	pinned="$pinned$ns "
	where="namespace of $(cat "$p/comm")" enter="nsenter --net=$p/ns/net --"
	netns
done 2>/dev/null
