#!/bin/sh
# Unpacks Debian's package prometheus into a directory: nothing is installed, no service starts.
set -eu
to="$1"
[ -x "$to/usr/bin/promtool" ] && exit 0
mkdir -p "$to"
cd "$to"
apt-get -qq -o APT::Sandbox::User=root download prometheus
dpkg-deb -x prometheus_*.deb .
rm prometheus_*.deb
