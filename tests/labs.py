"""Names of tests' labs. One rule: a name tells which process made the lab, so that what a killed run left is found and removed."""

from __future__ import annotations

import itertools
import os
import re

from vnet.lab import NoSuchLab, labs, remove
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
