"""The commands of docs/operate.md, run as they stand on a pool of a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.running import ran
from tests.vnet.controller.daemons import controller

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(?!# on )(.*?)^```\n", re.M | re.S)  # the others run on machines (tests/debian)


@pytest.mark.usefixtures("ovs")
def test_every_command_works(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/operate.md").read_text())
    assert len(blocks) == 2
    with controller() as pool:
        here = f" --run-dir {pool.dir}/run --state-dir {pool.dir}/state"
        lines = "".join(blocks).replace("/root", str(tmp_path)).splitlines()
        code, said = ran("\n".join(line if "pool verify" in line else line + here for line in lines), tmp_path)
        assert code == 0, said
        assert said.count("pool test at revision 1") == 2
