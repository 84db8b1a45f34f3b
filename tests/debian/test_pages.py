"""docs/install.md, from bare machines to VMs that reach each other, and the pages that go on from there."""

from __future__ import annotations

from pathlib import Path

from tests.debian.guide import run_page, three_hosts


def test_the_pages(root: Path, debs: list[Path], tmp_path: Path) -> None:
    with three_hosts(root, debs, tmp_path) as machines:
        assert run_page("install.md", machines) > 12
        assert run_page("troubleshooting.md", machines) > 12
        assert run_page("operate.md", machines) > 10
