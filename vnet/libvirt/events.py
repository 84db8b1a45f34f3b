"""The events of this host's libvirt: when a guest that migrates is paused here, and when it goes on here.

One rule: all that is known is libvirt's. Whatever ends is begun again, and then all domains are read anew.

The hook does not hear of the pause (`hook.py`). `virsh event` does, from QEMU's own STOP, in some milliseconds.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from vnet.client import Client, ClientError, Conflict, NotFound, Unit
from vnet.client.local import LocalAgent
from vnet.libvirt.domain import Domain, UnreadableDomain, read_domain
from vnet.libvirt.hook import unit_of
from vnet.util.commands import ToolFailed, run
from vnet.util.logs import about

log = logging.getLogger(__name__)

AGAIN_S = 2.0  # until virsh is started again
HASTE_S = 0.1  # for the agent to take a call off its socket; one that does not is stopped
LINE = re.compile(r"event 'lifecycle' for domain '(?P<domain>.*)': (?P<event>\w+) (?P<detail>[\w -]+)")
STARTED, PAUSED, RUNS = "Started", "Suspended", "Resumed"
MIGRATING = ("Migrated", "Post-copy")


class Virsh:
    """Questions to one libvirt, without leave to change anything. uri: as libvirt names it, "" for its default."""

    def __init__(self, uri: str = "") -> None:
        self.uri = uri
        self._command = ("virsh", "--quiet", "--readonly", *(("--connect", uri) if uri else ()))

    def domains(self) -> Iterator[Domain]:
        """The domains that run. Those that vnet cannot read are logged. Raises ToolFailed."""
        for uuid in run(*self._command, "list", "--uuid", "--state-running", "--state-paused").split():
            if (found := self.domain(uuid)) is not None:
                yield found

    def domain(self, name: str) -> Domain | None:
        """A domain by its name or UUID; None if there is none, or none that vnet can read."""
        try:
            return read_domain(run(*self._command, "dumpxml", "--domain", name))
        except ToolFailed:
            return None
        except UnreadableDomain as error:
            log.warning("domain %s: %s", name, error)
            return None

    def hostname(self) -> str:
        """What the host calls itself. Raises ToolFailed."""
        return run(*self._command, "hostname").strip()

    def events(self) -> subprocess.Popen[str]:
        """A process whose lines are the events of domains, as they happen."""
        command = [*self._command, "event", "--event", "lifecycle", "--loop"]
        words = {**os.environ, "LC_ALL": "C"}  # else they would be in the language of whoever runs this
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=words)


class MigrationEvents:
    """Says `switch` to the pool when a guest that migrates is paused on this host, and `activate` to the agent when it goes on here."""

    def __init__(
        self, client: Client, agent_socket: str, virsh: Virsh, ready: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._agent_socket = agent_socket
        self._virsh = virsh
        self._ready = ready
        self._units: dict[str, list[Unit]] = {}  # by the domain's name
        self._problem = ""
        self._stopped = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped.is_set():
            try:
                with self._virsh.events() as process:
                    self._process = process
                    try:
                        self._read(process.stdout or ())
                    finally:
                        process.terminate()
                problem = "virsh has ended: is libvirt running?"
            except (ToolFailed, ClientError, OSError) as error:
                problem = str(error)
            if problem != self._problem and not self._stopped.is_set():
                log.warning("%s. Events are asked for again every %g s", problem, AGAIN_S)
                self._problem = problem
            self._stopped.wait(AGAIN_S)

    def stop(self) -> None:
        self._stopped.set()
        if self._process is not None:
            self._process.terminate()

    def _read(self, lines: Iterable[str]) -> None:
        self._units.clear()
        for domain in self._virsh.domains():
            self._learn(domain)
        self._problem = ""
        self._ready()
        for line in lines:
            if found := LINE.search(line):
                self._take(found["domain"], found["event"], found["detail"].strip())

    def _take(self, name: str, event: str, detail: str) -> None:
        try:
            if event == STARTED:
                # Its memory takes longer than this to be copied; others' events do not wait for it.
                threading.Thread(target=self._learn_by_name, args=(name,), daemon=True).start()
            elif event == PAUSED and detail in MIGRATING:
                units = self._of(name)
                self._hasten(units)
                for unit in units:
                    self._client.switch(unit)
                    log.info("paused here: its ports are open where it goes", extra=about(vm=unit.id))
            elif event == RUNS and detail in MIGRATING:
                self._activate(self._of(name))
        except Conflict as error:
            log.info("domain %s: %s", name, error)  # no migration of vnet's, or one that is further already
        except (ClientError, ToolFailed) as error:
            log.warning("domain %s, %s: %s", name, event.lower(), error)

    def _hasten(self, units: list[Unit]) -> None:
        """Has the agent here say it to the destination's. Nothing depends on that, and nothing waits for it."""
        with suppress(ClientError), LocalAgent(self._agent_socket, HASTE_S) as agent:
            for unit in units:
                agent.send("switch", _named(unit))

    def _activate(self, units: list[Unit]) -> None:
        with LocalAgent(self._agent_socket) as agent:
            for unit in units:
                agent.call("activate", _named(unit))
                log.info("runs here", extra=about(vm=unit.id))

    def _of(self, name: str) -> list[Unit]:
        if name not in self._units:
            self._learn_by_name(name)
        return self._units.get(name, [])

    def _learn_by_name(self, name: str) -> None:
        with suppress(ClientError):  # it is looked up again when it is needed
            domain = self._virsh.domain(name)
            if domain is not None:
                self._learn(domain)

    def _learn(self, domain: Domain) -> None:
        found: dict[Unit, None] = {}
        for interface in domain.interfaces:
            with suppress(NotFound):
                found[unit_of(self._client.vif(interface.id))] = None
        self._units[domain.name] = list(found)


def _named(unit: Unit) -> dict[str, str]:
    return {"vm" if unit.plural == "vms" else "vif": unit.id}
