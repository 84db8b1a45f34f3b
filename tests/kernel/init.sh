#!/bin/sh
# The first process of the virtual machine: this machine's files under an overlay in memory, the modules of the kernel, then the
# command. Of the kernel's command line: vm_modules the directory of modules, vm_share one that both machines see.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
    case $word in vm_modules=* | vm_share=*) eval "$word" ;; esac
done
insmod "$vm_modules/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o size=100% memory /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work root /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
ln -s /proc/self/fd dev/fd # as these are made by udev or systemd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir -p dev/shm dev/pts run/share "usr/lib/modules/$(uname -r)" mnt/before
mount -t tmpfs tmpfs dev/shm
mount -t devpts devpts dev/pts
mount -t hostfs -o "$vm_modules" modules "usr/lib/modules/$(uname -r)"
mount -t tmpfs tmpfs run
mkdir run/share run/lock
mount -t hostfs -o "$vm_share" share run/share
pivot_root . mnt/before # not chroot: the kernel, too, looks for modules in this root
ip link set lo up
# What udev loads on a host.
modprobe -a openvswitch nf_conntrack_netlink tun ipv6
sh /run/share/command </dev/null && status=0 || status=$?
echo $status >/run/share/status
halt -f
