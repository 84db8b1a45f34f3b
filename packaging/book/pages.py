"""The pages of the site, from those of the repository. One rule: a page stays as it is read there; what the site needs is made here.

`<!-- on xen1: ... -->`, which tests run, is left out; `# on xen1` above a block's commands is its title; links to topologies/ lead to a page with
all of them, and those to docs/ from the pages beside it into it. Pages that the navigation does not name come last among the guides, decisions in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HIDDEN = re.compile(r"^<!-- .*?-->\n", re.MULTILINE | re.DOTALL)
MACHINE = re.compile(r"^```(sh|text)\n# (on [^\n]+)\n", re.MULTILINE)
EXAMPLE = re.compile(r"\]\((?:\.\./)+topologies/(?:([\w-]+)\.vnet\.yaml)?\)")
OTHERS, DECISIONS = "Guides", "Decisions"


def site_text(markdown: str) -> str:
    """A page's text as the site has it."""
    text = HIDDEN.sub("", markdown)
    text = MACHINE.sub(r'```\1 title="\2"\n', text)
    return EXAMPLE.sub(lambda found: f"](examples.md{f'#{found[1]}' if found[1] else ''})", text)


def add_unnamed(nav: list[Any], pages: Iterable[str]) -> None:
    """Put the pages that a navigation does not name into it."""
    named = set(_named(nav))
    places = dict(_sections(nav))
    for page in sorted(set(pages) - named):
        places[DECISIONS if page.startswith("adr/") else OTHERS].append(page)


def _named(nav: list[Any]) -> Iterator[str]:
    for part in nav:
        for target in part.values() if isinstance(part, dict) else [part]:
            yield from _named(target) if isinstance(target, list) else [target]


def _sections(nav: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for part in nav:
        for title, target in part.items() if isinstance(part, dict) else ():
            if isinstance(target, list):
                yield title, target
                yield from _sections(target)


def generated() -> dict[str, str]:
    """Pages that docs/ does not have, by their paths in the site."""
    beside = {"architecture.md": "ARCHITECTURE.md", "changelog.md": "CHANGELOG.md"}
    moved = {path: (ROOT / name).read_text().replace("](docs/", "](") for path, name in beside.items()}
    return {"examples.md": _examples(), **moved}


def _examples() -> str:
    parts = ["# Examples\n\nDocuments that tests load, apply and try. They are in `topologies/`.\n"]
    for file in sorted((ROOT / "topologies").glob("*.vnet.yaml")):
        parts.append(f"## {file.name.partition('.')[0]}\n\n```yaml\n{file.read_text()}```\n")
    return "\n".join(parts)
