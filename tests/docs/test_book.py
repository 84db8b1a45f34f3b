"""The pages of the book: links and anchors lead somewhere, and nothing is loaded from the net. `make docs` builds it."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def of_the_book(name: str) -> ModuleType:
    """A module of packaging/book, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "packaging/book" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages, offline, reference = (of_the_book(name) for name in ("pages", "offline", "reference"))
GENERATED: dict[str, str] = pages.generated() | reference.pages()


def anchors(text: str) -> set[str]:
    """Those of a page's headings, as Python-Markdown's toc makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        plain = unicodedata.normalize("NFKD", re.sub(r"\]\([^)]*\)", "", heading)).encode("ascii", "ignore").decode()
        name = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number = 0
        while (numbered := f"{name}_{number}" if number else name) in found:
            number += 1
        found.add(numbered)
    return found


def faults(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(CODE.sub("", text)):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert faults(page, page.read_text()) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](nothing.md) [b](install.md#nothing) [c](install.md#hosts-join) [d](#e-f) [g](#gone)\n\n## E: `f`\n"
    assert faults(DOCS / "index.md", text) == ["nothing.md", "install.md#nothing", "#e-f", "#gone"]


def test_the_navigation_names_pages_that_there_are_and_gets_the_others() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | set(GENERATED)
    assert set(pages._named(nav)) <= there
    pages.add_unnamed(nav, there)
    assert sorted(pages._named(nav)) == sorted(there)


def test_a_page_is_shown_without_what_tests_run() -> None:
    page = "a\n<!-- on xen1: vnet pki\nstatus -->\n```sh\n# on xen2 xen3\nvnet status\n```\n[b](../topologies/tiers.vnet.yaml), [c](../topologies/)\n"
    shown = 'a\n```sh title="on xen2 xen3"\nvnet status\n```\n[b](examples.md#tiers), [c](examples.md)\n'
    assert pages.site_text(page) == shown


def test_what_is_loaded_from_the_net_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://x/"><script src="https://x/y.js"></script><link rel="icon" href="//x/i">'
    )
    (tmp_path / "b.css").write_text("@import url(https://x/font.css); a {background: url(data:x)}")
    (tmp_path / "c.html").write_text('<img src="a.svg"><link rel="canonical" href="https://x/">')
    assert len(offline.loaded_from_elsewhere(tmp_path)) == 3


def test_links_of_generated_pages_lead_somewhere(tmp_path: Path) -> None:
    """Beside the others they are where their links say."""
    for page in DOCS.iterdir():
        (tmp_path / page.name).symlink_to(page)
    (tmp_path / "reference").mkdir()
    for path, text in GENERATED.items():
        (tmp_path / path).write_text(pages.site_text(text))
    assert {path: found for path, text in GENERATED.items() if (found := faults(tmp_path / path, text))} == {}


def test_the_reference_has_each_of_its_things() -> None:
    rest, clients, cli = (GENERATED[f"reference/{name}.md"] for name in ("rest", "clients", "cli"))
    assert "### `PUT /v1/networks/{id}`" in rest
    assert "[NetworkSpec](bodies.md#networkspec)" in rest
    assert "### put_network" in clients
    assert "Blocking only" not in clients
    assert "### vnet lab impair" in cli
    assert "| `--without-vlan TAG` |" in cli
    assert "| `-o [text|json]`" in cli
    assert "| 7 | `NOT_FOLLOWED` |" in GENERATED["reference/exit-codes.md"]


@pytest.mark.parametrize("daemon", ["agent", "controller"])
def test_monitoring_has_each_metric(daemon: str) -> None:
    page = (DOCS / "monitoring.md").read_text()
    spelled = re.sub(r"\{(\w+(?:,\w+)+)\}_", "{unit}_", page)
    names = [name.strip("`") for name, _, _ in reference.metrics_of(daemon)]
    assert len(names) > 15
    assert [name for name in names if name not in spelled] == []


def test_monitoring_has_each_event() -> None:
    page = (DOCS / "monitoring.md").read_text()
    kinds = reference.event_kinds()
    assert {"migration-started", "host-down", "taken-back"} <= set(kinds)
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []
