"""Fixtures that start labs and take them down."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.labs import new_name
from vnet.lab import Driver, Lab, labs, remove
from vnet.objects import PoolState


@pytest.fixture
def lab_name(netns: None) -> Iterator[str]:
    """A lab's name of one's own; what is left of it goes with the test."""
    name = new_name()
    yield name
    if name in labs():
        remove(name)


@pytest.fixture
def start(netns: None) -> Iterator[Callable[..., Lab]]:
    """Starts labs that end with the test."""
    made: list[Lab] = []

    def up(pool: PoolState, driver: Driver = Driver.NETNS) -> Lab:
        made.append(Lab.up(pool, name=new_name(), driver=driver))
        return made[-1]

    yield up
    for lab in made:
        lab.down()
