"""Labs of tests have names that tell which test run made them, so that what a killed run left is found and removed."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator

import pytest

from vnet.lab import Driver, Lab, NoSuchLab, labs, remove
from vnet.lab.processes import alive
from vnet.objects import PoolState

NAME = re.compile(r"t(\d+)x\d+")
_numbers = itertools.count()


def new_name() -> str:
    return f"t{os.getpid()}x{next(_numbers)}"


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers() -> None:
    """Take down the labs of test runs that are dead."""
    for name in labs():
        match = NAME.fullmatch(name)
        if match and not alive(int(match[1])):
            try:
                remove(name)
            except NoSuchLab:  # another run was faster
                continue


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
