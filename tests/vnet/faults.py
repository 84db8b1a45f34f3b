"""What may happen to the processes of a lab's pool and to its networks, enumerated. One rule: `mend` undoes all that `break_` did."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from enum import Enum

from tests.polling import wait_until
from vnet.controller.embedded import EmbeddedDatabase
from vnet.lab import Lab
from vnet.lab.processes import alive, stop

CONTROLLER = "controller"


class Part(Enum):
    AGENT = "agent"
    CONTROLLER = "controller"
    DATABASE = "database"
    VSWITCHD = "ovs-vswitchd"


class How(Enum):
    KILLED = "killed"  # SIGKILL, then started again
    STOPPED = "stopped"  # SIGSTOP, then SIGCONT


@dataclass(frozen=True, slots=True)
class ProcessFault:
    """One process dies, or stands still. `host`: whose agent or ovs-vswitchd; "" for the controller and the database."""

    part: Part
    how: How
    host: str = ""

    def __str__(self) -> str:
        return f"{self.part.value}{f' of {self.host}' if self.host else ''} {self.how.value}"

    def pid(self, lab: Lab) -> int:
        """The process it happens to."""
        if self.part is Part.DATABASE:
            return database_of(lab).pid() or 0
        if self.part is Part.VSWITCHD:
            return lab.ovs(self.host).pid("ovs-vswitchd")
        return lab.daemons.pid(self.host or CONTROLLER)

    def break_(self, lab: Lab) -> None:
        pid = self.pid(lab)
        assert alive(pid), f"{self}: process {pid} does not run"
        if self.how is How.KILLED:
            stop([pid])
        else:
            os.kill(pid, signal.SIGSTOP)

    def mend(self, lab: Lab) -> None:
        if self.how is How.STOPPED:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid(lab), signal.SIGCONT)
        elif self.part is Part.AGENT:
            lab.daemons.start_agent(self.host, lab.ovs(self.host))
        elif self.part is Part.CONTROLLER:
            lab.daemons.start_controller()
        elif self.part is Part.DATABASE:
            # Its controller starts it again.
            wait_until(lambda: alive(self.pid(lab)), "the pool database runs again")
        else:
            lab.ovs(self.host).start_vswitchd()
            lab.revive(self.host)


@dataclass(frozen=True, slots=True)
class Cut:
    """A host loses a network: 'underlay', by which it reaches other hosts' tunnels, or 'database'."""

    host: str
    what: str

    def __str__(self) -> str:
        return f"{self.host} cut off from the {self.what}"

    def break_(self, lab: Lab) -> None:
        lab.cut(self.host, self.what)

    def mend(self, lab: Lab) -> None:
        lab.heal(self.host, self.what)


Fault = ProcessFault | Cut


def database_of(lab: Lab) -> EmbeddedDatabase:
    """The lab's pool database."""
    return EmbeddedDatabase(lab.daemons.dir, lab.daemons.dir / "state")
