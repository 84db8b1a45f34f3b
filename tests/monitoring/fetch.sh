#!/bin/sh
# Unpacks Debian's packages prometheus, nfdump and pmacct into a directory, with the libraries that this machine lacks: nothing is installed, no service starts.
set -eu
to="$1"
[ -x "$to/usr/bin/promtool" ] && [ -x "$to/usr/bin/nfdump" ] && [ -x "$to/usr/sbin/nfacctd" ] && exit 0
mkdir -p "$to/packages"
cd "$to/packages"
libraries=$(apt-get -qq -s --no-install-recommends install pmacct | sed -n 's/^Inst \(lib[^ ]*\).*/\1/p')
# shellcheck disable=SC2086 # a word for each package
apt-get -qq -o APT::Sandbox::User=root download prometheus nfdump pmacct $libraries
for package in *.deb; do
    dpkg-deb -x "$package" ..
done
rm -r ../packages
