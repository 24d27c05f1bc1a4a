# Makes a host of the namespaces it runs in, and becomes its first process.
# Wants DIR ROOT NAME MAC4 ADDR4 ADDR6 GW4 GW6 CGROUPS MACHINE_ID HOSTS; file descriptor 3 is told when it is done.
r=$DIR/root

mount --make-rprivate /
mount -t overlay -o "lowerdir=$ROOT,upperdir=$DIR/upper,workdir=$DIR/work" lab "$r"
mkdir -p "$r/var/lib/docker" "$r/var/lib/containerd" "$r/lib/modules"
# overlay2, and containerd's overlayfs, do not run on an overlay.
mount --bind "$DIR/docker" "$r/var/lib/docker"
mount --bind "$DIR/containerd" "$r/var/lib/containerd"
mount -t tmpfs -o mode=755 tmpfs "$r/run"
mount -t tmpfs -o mode=1777 tmpfs "$r/tmp"
mount -t proc proc "$r/proc"
mount -t sysfs sysfs "$r/sys"
mount -t bpf bpf "$r/sys/fs/bpf"
mount --rbind /dev "$r/dev"
mount -t tmpfs -o mode=1777 tmpfs "$r/dev/shm"
[ ! -d /lib/modules ] || mount --bind -o ro /lib/modules "$r/lib/modules"

# We are in a cgroup namespace, so a hierarchy mounted now has the host's own cgroup as its top.
case $CGROUPS in
". cgroup2"*) ;;
*) mount -t tmpfs -o mode=755 tmpfs "$r/sys/fs/cgroup" ;;
esac
printf %s "$CGROUPS" | while read -r dir type options; do
	mkdir -p "$r/sys/fs/cgroup/$dir"
	mount -t "$type" -o "$options" "$type" "$r/sys/fs/cgroup/$dir"
done
# In v2 a cgroup whose children have controllers may hold no process itself.
if [ -e "$r/sys/fs/cgroup/cgroup.controllers" ]; then
	mkdir -p "$r/sys/fs/cgroup/init"
	echo 0 >"$r/sys/fs/cgroup/init/cgroup.procs"
	for c in $(cat "$r/sys/fs/cgroup/cgroup.controllers"); do
		echo "+$c" >"$r/sys/fs/cgroup/cgroup.subtree_control" || true
	done
fi

echo "$NAME" >/proc/sys/kernel/hostname
echo "$NAME" >"$r/etc/hostname"
echo "$MACHINE_ID" >"$r/etc/machine-id"
printf %s "$HOSTS" >"$r/etc/hosts"
# Nobody answers there, and the refusal is immediate: a lookup of an outside name fails without a wait.
printf 'nameserver %s\n' "$GW4" >"$r/etc/resolv.conf"

# As on a machine that has just booted. New network namespaces take some of these from the machine's own, where an
# engine may have changed them. rp_filter is what systemd's 50-default.conf sets.
set_sysctl() { [ ! -e "/proc/sys/net/$1" ] || echo "$2" >"/proc/sys/net/$1"; }
set_sysctl ipv4/ip_forward 0
set_sysctl ipv4/conf/all/rp_filter 0
set_sysctl ipv4/conf/default/rp_filter 2
set_sysctl ipv4/conf/eth0/rp_filter 2
set_sysctl bridge/bridge-nf-call-iptables 0
set_sysctl bridge/bridge-nf-call-ip6tables 0
set_sysctl bridge/bridge-nf-call-arptables 0
# The wire is ours: no duplicate can be on it, and the address may be used at once.
set_sysctl ipv6/conf/eth0/accept_dad 0
ip -batch - <<END
link set lo up
addr add $ADDR4 dev eth0
addr add $ADDR6 dev eth0 nodad
link set eth0 up
route add default via $GW4
route add default via $GW6
END

cd "$r"
pivot_root . mnt
# The first process has to reap: a dockerd that is started again takes the zombie of its containerd for a live one.
exec chroot . sh -euc '
	umount -l /mnt
	mount --make-rshared /
	echo ready >&3
	exec 3>&-
	exec tini -- sleep infinity </dev/null
'
