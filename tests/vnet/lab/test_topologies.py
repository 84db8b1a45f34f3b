"""Every topology that we ship, on this machine: up, who reaches whom, down to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vnet.lab.conftest import new_name
from tests.vnet.lab.test_lab import left_of
from vnet.lab import Driver, Lab
from vnet.lab.matrix import Reached, expected, measure
from vnet.model import LockingMode, PoolState
from vnet.plan import desired_state
from vnet.topology.load import load

pytestmark = [pytest.mark.ovs, pytest.mark.netns]
FILES = sorted((Path(__file__).parents[3] / "topologies").glob("*.vnet.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
def test_topology_reaches_what_it_should_and_nothing_else(file: Path) -> None:
    pool = desired_state(load(file.read_bytes(), str(file)), PoolState())
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        matrix = measure(lab)
        found = {pair: outcome is not Reached.NOT for pair, outcome in matrix.reached.items()}
        assert found == expected(lab)
        assert Reached.DOUBLED not in matrix.reached.values()
        unlocked = {lab.label(vif) for vif in pool.vifs.values() if vif.locking_mode is LockingMode.UNLOCKED}
        assert matrix.strays.keys() <= unlocked  # who may have any MAC gets what nobody is known to have
    assert left_of(lab.spec.name, lab.spec.namespaces()) == []
