#!/bin/sh
# Whether the search of a site on a disk finds a word: search.sh dist/book rollback. The browser reaches nothing else.
set -eu
site=$(cd "$1" && pwd)
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
found=$(timeout 120 chromium --headless=new --no-sandbox --disable-gpu --proxy-server=127.0.0.1:9 --user-data-dir="$profile" \
	--virtual-time-budget=10000 --dump-dom "file://$site/index.html?q=$2" 2>/dev/null | grep -o '[1-9][0-9]* matching documents' | head -1)
test -n "$found" || { echo "the search finds no page with '$2'" >&2; exit 1; }
echo "search: $found"
