#!/bin/sh
# Unpacks Debian's packages prometheus and nfdump into a directory: nothing is installed, no service starts.
set -eu
to="$1"
[ -x "$to/usr/bin/promtool" ] && [ -x "$to/usr/bin/nfdump" ] && exit 0
mkdir -p "$to"
cd "$to"
apt-get -qq -o APT::Sandbox::User=root download prometheus nfdump
for package in prometheus_*.deb nfdump_*.deb; do
    dpkg-deb -x "$package" .
    rm "$package"
done
