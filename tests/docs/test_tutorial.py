"""docs/tutorial.md, from top to bottom as it stands, in a lab of its own name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.docs.running import ran
from tests.docs.test_documents import DOCS, agrees
from tests.labs import new_name
from tests.vnet.lab.test_lab import left_of
from vnet.lab import Lab, labs, remove
from vnet.lab.names import lab_dir

pytestmark = pytest.mark.usefixtures("netns")
PAGE = DOCS / "tutorial.md"
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>sh|yaml)\n(?P<text>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.M | re.S
)  # fmt: skip
PICTURE = DOCS / "assets" / "tutorial-matrix.svg"


def test_the_tutorial_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_name()
    program = tmp_path / "vnet"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vnet.cli.main "$@"\n')
    program.chmod(0o755)
    directory = str(lab_dir(name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    monkeypatch.setenv("VNET_LAB_NAME", name)
    monkeypatch.setenv("VNET_CONTROLLER", f"unix:{directory}/pool/controller.sock")

    def here(text: str) -> str:
        """A text of the page with the lab's own name."""
        own = text.replace("/run/vnet-lab/tutorial", directory).replace("lab tutorial", f"lab {name}")
        return own.replace("vnet lab up pool.vnet.yaml", f"vnet lab up pool.vnet.yaml --name {name}")

    blocks = list(BLOCK.finditer(PAGE.read_text()))
    assert len(blocks) == PAGE.read_text().count("```sh\n") + PAGE.read_text().count("```yaml\n") > 20
    try:
        for block in blocks:
            note, text = block["note"] or "", here(block["text"])
            if block["language"] == "yaml":
                with (tmp_path / note.split()[1]).open("a") as written:
                    written.write(f"\n{text}")
                continue
            code, output = ran(text, tmp_path)
            assert code == int(note.removeprefix("exits with ") or 0), f"{text}{output}"
            assert agrees(here(block["output"] or "..."), output), f"{text}{output}"
            if "vnet lab up" in text:
                namespaces = Lab.attach(name).spec.namespaces()
        assert left_of(name, namespaces) == []
        assert (tmp_path / "matrix.svg").read_text() == PICTURE.read_text(), "the picture is an old one"
    finally:
        if name in labs():
            remove(name)
