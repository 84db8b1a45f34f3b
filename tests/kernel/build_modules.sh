#!/bin/sh
# Builds the modules of the connection tracker and of Open vSwitch with conntrack zones, and nftables for IPv6, which Debian's user-mode-linux leaves out,
# from Debian's source of the same version, and puts them with the package's other modules into the directory named. Needs a minute
# of a processor, 140 MB from Debian's mirror, and 1.5 GB of space for the while.
set -eu
target=$1
packaged=$(echo /usr/lib/uml/modules/*)
version=$(basename "$packaged")
stamp=built-by-$(cksum <"$0" | cut -d' ' -f1) # another script builds other modules
[ ! -e "$target/$version/$stamp" ] || exit 0
source=linux-source-${version%.*}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The source that the kernel was built from: a module of another version would not load.
found=$(apt-cache madison "$source" | awk -v version="$version-" '{ if (index($3, version) == 1) { print $3; exit } }')
if [ -z "$found" ]; then
    echo "vnet: Debian's mirror has no $source of version $version: tests of security groups skip" >&2
    exit 0
fi
apt-get download -qq "$source=$found" 2>/dev/null
dpkg-deb --fsys-tarfile ./*.deb | tar xO "./usr/src/$source.tar.xz" |
    tar xJ --strip-components=1 --exclude="$source/arch/[!ux]*.[chS]" --exclude="$source/arch/*.dts*" \
        --exclude="$source/drivers/*.[ch]" --exclude="$source/sound/*.[ch]" --exclude="$source/tools/testing/*.[ch]"
zcat /usr/share/doc/user-mode-linux/config.gz >.config
scripts/config --enable NF_CONNTRACK_ZONES --enable NF_TABLES_IPV6

built() {
    make ARCH=um -j"$(nproc)" KBUILD_MODPOST_WARN=1 "$@" >build.log 2>&1 || { tail -20 build.log >&2; exit 1; }
}
built olddefconfig
built modules_prepare
# All that looks into a connection, and so knows where its zone is. Symbols of the kernel itself are not looked up.
set -- net/netfilter/nf_conntrack net/netfilter/nf_conntrack_netlink net/netfilter/nf_nat net/netfilter/nf_conncount \
    net/ipv4/netfilter/nf_defrag_ipv4 net/ipv6/netfilter/nf_defrag_ipv6 net/nsh/nsh net/openvswitch/openvswitch net/netfilter/nf_tables
# shellcheck disable=SC2046
built $(printf '%s.ko ' "$@")

mkdir -p "$target"
rm -rf "$target/$version.new"
cp -a "$packaged" "$target/$version.new"
for module in "$@"; do
    strip --strip-debug "$module.ko" -o "$target/$version.new/kernel/$module.ko"
done
touch "$target/$version.new/$stamp"
rm -rf "${target:?}/$version"
mv "$target/$version.new" "$target/$version"
