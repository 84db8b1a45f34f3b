"""Whether a site is read without a network. One rule: nothing that a page loads has an address of its own host.

`python packaging/book/offline.py dist/book` exits with 1 and the places if not.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADED = {"src", "srcset", "data", "poster"}
LINKED = {"stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch", "icon", "modulepreload", "manifest"}
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//")
IMPORTED = re.compile(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]+)")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = {name: value or "" for name, value in attrs}
        loads = [value for name, value in held.items() if name in LOADED]
        if tag == "link" and LINKED & set(held.get("rel", "").split()):
            loads.append(held.get("href", ""))
        self.found += [value for value in loads if ELSEWHERE.match(value)]


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Each address that a page or a style sheet loads from another host, as FILE: ADDRESS."""
    found = []
    for page in sorted(site.rglob("*.html")):
        parser = _Page()
        parser.feed(page.read_text())
        found += [f"{page}: {address}" for address in parser.found]
    for sheet in sorted(site.rglob("*.css")):
        found += [f"{sheet}: {address}" for address in IMPORTED.findall(sheet.read_text())]
    return found


if __name__ == "__main__":
    faults = loaded_from_elsewhere(Path(sys.argv[1]))
    sys.exit("\n".join(faults) or 0)
