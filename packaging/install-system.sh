#!/bin/sh
# Installs the Debian packages named, if any is missing. Says in one line what is in the way.
set -eu
recommends="" # RECOMMENDS=no leaves out the packages that these recommend
[ "${RECOMMENDS:-}" != no ] || recommends=--no-install-recommends
missing=""
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "vnet: this machine is not Debian: install these with its own package manager, then run again:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "vnet: not root: run 'sudo apt-get install$missing', then run again" >&2
    exit 1
fi
echo "Installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The lab starts daemons of its own: the packages' services are not wanted here.
apt-get install -y -qq $recommends $missing >/dev/null
