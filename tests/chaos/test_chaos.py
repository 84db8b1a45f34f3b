"""A short run of faults at random; `make chaos` runs a long one."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import FAULTS, HOSTS, run
from tests.labs import new_name
from tests.vnet.faults import Cut, How, Part, ProcessFault

SEED = 1
ROUNDS = 8


def test_every_fault_that_is_told_of_is_in_the_list() -> None:
    assert {f.part for f in FAULTS if isinstance(f, ProcessFault)} == set(Part)
    assert {f.how for f in FAULTS if isinstance(f, ProcessFault)} == set(How)
    assert {(f.host, f.what) for f in FAULTS if isinstance(f, Cut)} == {
        (host, what) for host in HOSTS for what in ("underlay", "database")
    }


@pytest.mark.usefixtures("netns")
def test_a_pool_comes_through_faults_and_ends_as_its_rows_say() -> None:
    run(new_name(), ROUNDS, SEED)
