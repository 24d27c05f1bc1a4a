# Makes the image of containers, /usr/share/lab/image.tar, out of the root file system it runs in, and tidies that up.
d=$(mktemp -d)
mkdir -p "$d/bin" "$d/etc" "$d/proc" "$d/sys" "$d/dev" "$d/tmp" "$d/root" "$d/var/www"
chmod 1777 "$d/tmp"
cp /usr/bin/busybox "$d/bin/busybox"
for name in $(busybox --list); do
	[ -e "$d/bin/$name" ] || ln -s busybox "$d/bin/$name"
done
# The ping and ip of busybox lack what tests need: intervals below a second, most of what ip can show. And its shell runs
# its own ping and ip even where there are others, so the shell is dash.
copy() {
	path=$(command -v "$1")
	rm -f "$d/bin/$2"
	cp -L "$path" "$d/bin/$2"
	for library in $(ldd "$path" | grep -o '/[^ ]*'); do
		mkdir -p "$d${library%/*}"
		cp -L "$library" "$d$library"
	done
}
copy dash sh
copy ping ping
copy ip ip
echo 'root:x:0:0:root:/root:/bin/sh' >"$d/etc/passwd"
echo 'root:x:0:' >"$d/etc/group"
mkdir -p /usr/share/lab
tar -C "$d" -c . >/usr/share/lab/image.tar
rm -rf "$d"
apt-get clean
rm -rf /var/lib/apt/lists/*
# The CRI plugin serves Kubernetes only, and waits for a CNI configuration that never comes.
mkdir -p /etc/containerd
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >/etc/containerd/config.toml
