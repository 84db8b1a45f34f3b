"""What goes wrong in a lab. One tree; each message says what to do."""

from __future__ import annotations


class LabError(Exception):
    """A lab could not do what was asked."""


class LabUnsupported(LabError):
    """This machine, user or driver cannot do it. The message says what to change."""


class LabExists(LabError):
    """A lab of this name is up, or something has the name of one of its parts."""


class NoSuchLab(LabError):
    """No lab of this name is up here."""


class UnknownName(LabError):
    """No host, VM, VIF or uplink of this name is in the lab."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        super().__init__(f"no {kind} {name!r} in this lab; there are: {', '.join(sorted(known)) or 'none'}")


class CommandFailed(LabError):
    """A program the lab runs ended with an error: its arguments and what it said."""


class WiresError(LabError):
    """The lab's wires process refused a request, or is gone."""
