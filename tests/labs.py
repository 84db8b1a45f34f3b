"""Labs of tests. One rule: a lab's name tells which process made it, so that the labs of a killed run are found and removed."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vnet.lab import Lab, NoSuchLab, labs, remove
from vnet.lab.processes import alive

NAME = re.compile(r"t(\d+)x\d+")
_numbers = itertools.count()


def new_name() -> str:
    return f"t{os.getpid()}x{next(_numbers)}"


def remove_leftovers() -> None:
    """Take down the labs of test runs that are dead."""
    for name in labs():
        match = NAME.fullmatch(name)
        if match and not alive(int(match[1])):
            try:
                remove(name)
            except NoSuchLab:  # another run was faster
                continue


class SharedLab:
    """One lab for several tests, each of which undoes its changes. A test that fails takes the lab down, and the next one builds it again."""

    def __init__(self, build: Callable[[], Lab]) -> None:
        self._build = build
        self._lab: Lab | None = None

    @contextmanager
    def lent(self) -> Iterator[Lab]:
        """The lab, for one test."""
        try:
            if self._lab is None:
                self._lab = self._build()
            yield self._lab
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        if self._lab is not None:
            self._lab.down()
            self._lab = None
