"""The commands of docs/operate.md, run as they stand on a pool of a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vnet.controller.daemons import controller

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(?!# on )(.*?)^```\n", re.M | re.S)  # the others run on machines (tests/debian)
VNET = """set -e
vnet() { local command=$2; shift 2
  [ $command = verify ] || set -- --run-dir "$POOL/run" --state-dir "$POOL/state" "$@"
  "$PYTHON" -m vnet.cli.main pool $command "$@"; }
"""


@pytest.mark.usefixtures("ovs")
def test_every_command_works(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/operate.md").read_text())
    assert len(blocks) == 2
    with controller() as pool:
        script = VNET + "".join(blocks).replace("/root", str(tmp_path))
        env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "POOL": str(pool.dir)}
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("pool test at revision 1") == 2
