"""docs/history.md, executed on a pool of a test: the numbers of its revisions are true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.test_documents import DOCS, agrees
from tests.vnet.controller.daemons import DOCUMENT, controller
from vnet.cli import main
from vnet.cli.exits import ExitCode

BLOCK = re.compile(r"^```sh\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.M | re.S)


def run_here(code: str) -> bool:
    """What asks about VMs that run is asked on the lab of tests/docs/test_pages.py."""
    return "web1" not in code


def commands() -> list[str]:
    page = (DOCS / "history.md").read_text()
    return [block["code"] for block in BLOCK.finditer(page) if run_here(block["code"])]


@pytest.mark.usefixtures("ovs")
def test_every_command_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pool.vnet.yaml").write_bytes(DOCUMENT)
    monkeypatch.chdir(tmp_path)
    with controller(document=None) as pool:
        monkeypatch.setenv("VNET_CONTROLLER", pool.address)
        for block in BLOCK.finditer((DOCS / "history.md").read_text()):
            if not run_here(block["code"]):
                continue
            capsys.readouterr()
            for line in block["code"].splitlines():
                assert main.run(shlex.split(line, comments=True)[1:]) in (ExitCode.OK, ExitCode.NOT_FOLLOWED), line
            if block["output"]:
                assert agrees(block["output"], "\n".join(capsys.readouterr().out.splitlines()[-3:]) + "\n")
        with pool.client() as client:
            assert client.vifs() == []
