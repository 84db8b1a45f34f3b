#!/bin/sh
# Puts a guest's kernel and initrd into the directory named: Debian's cloud kernel as it is, and busybox. Needs 30 MB from Debian's mirror, once.
set -eu
target=$1
[ ! -e "$target/initrd" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -1)
apt-get download -qq "$kernel" busybox-static 2>/dev/null
for package in ./*.deb; do
    dpkg-deb -x "$package" files
done
busybox=$(pwd)/files/bin/busybox
[ -x "$busybox" ] || busybox=$(pwd)/files/usr/bin/busybox
modules=$(echo files/lib/modules/*/kernel files/usr/lib/modules/*/kernel | tr ' ' '\n' | grep -v '\*' | head -1)

mkdir -p root/bin root/lib root/dev root/proc root/sys
cp "$busybox" root/bin/busybox
number=0
for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev \
    drivers/virtio/virtio_pci net/core/failover drivers/net/net_failover drivers/net/virtio_net; do
    number=$((number + 1))
    if [ -e "$modules/$module.ko" ]; then
        cp "$modules/$module.ko" "root/lib/$number.ko"
    else
        xz -dc "$modules/$module.ko.xz" >"root/lib/$number.ko"
    fi
done
cat >root/init <<'INIT'
#!/bin/busybox sh
# Words of the command line: address.N=ADDRESS of eth0, eth1, ...
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for number in 1 2 3 4 5 6 7 8; do
    insmod /lib/$number.ko
done
ip link set lo up
for word in $(cat /proc/cmdline); do
    case $word in
    address.*)
        device=eth${word#address.}
        ip link set "${device%%=*}" up
        ip address add "${word#*=}" dev "${device%%=*}"
        ;;
    esac
done
echo "guest is up"
while :; do
    nc -ll -p 7 -e cat # echo, RFC 862
done
INIT
chmod 755 root/init
mkdir -p "$target"
cp files/boot/vmlinuz-* "$target/kernel"
(cd root && find . | "$busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$target/initrd.new"
mv "$target/initrd.new" "$target/initrd"
