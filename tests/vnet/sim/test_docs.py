"""docs/simulator.md: its Python runs as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/simulator.md").read_text(), re.S)


def test_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in BLOCKS[:-1]:
        exec(compile(block, "docs/simulator.md", "exec"), names)


def test_example_of_the_plugin_runs(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(BLOCKS[-1])
    shutil.copy(ROOT / "topologies/quickstart.vnet.yaml", tmp_path / "office.vnet.yaml")
    command = [sys.executable, "-m", "pytest", "-p", "vnet.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ})
    assert "1 passed" in done.stdout, done.stdout
