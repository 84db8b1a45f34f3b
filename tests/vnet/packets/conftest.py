"""One pool of three hosts with every network type, on both drivers, shared by the tests that only send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs import new_name
from tests.vnet.packets.pools import every_type
from vnet.lab import Driver, Lab


@pytest.fixture(scope="module", params=list(Driver), ids=lambda driver: driver.value)
def lab(netns: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The pool of `every_type`, all VMs started and ready."""
    with Lab.up(every_type(), name=new_name(), driver=request.param, daemons=True) as running:
        running.start_all()
        running.daemons.settle()
        yield running
