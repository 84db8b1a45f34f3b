"""The error tree of the lab. Each message names a remedy.

The errors that tests may meet on the simulator too are of its classes as well, so that one test runs on either.
"""

from __future__ import annotations

from vnet.sim.errors import GuestPaused, NotPlugged, UnknownName


class LabError(Exception):
    """Base of the errors that a lab raises on purpose."""


class LabUnsupported(LabError):
    """This machine, user or driver cannot do it. The message names the change that is needed."""


class LabExists(LabError):
    """A lab of this name is up, or something has the name of one of its parts."""


class NoSuchLab(LabError):
    """No lab of this name is up here."""


class NotInLab(LabError, UnknownName):
    """No host, VM, VIF or uplink of this name is in the lab."""


class NotPluggedInLab(LabError, NotPlugged):
    """The VIF has no port on the host where its guest should run."""


class GuestPausedInLab(LabError, GuestPaused):
    """The VIF's guest is paused, so it cannot send."""


class CommandFailed(LabError):
    """A program of the lab failed; the message has its arguments and its output."""


class WiresError(LabError):
    """The lab's wires process refused a request, or is gone."""
