"""A toolstack that migrates a VM: it drives the controller, plugs the ports and switches the guest over."""

from __future__ import annotations

import time
from contextlib import ExitStack

from vnet.client import Client, Unit
from vnet.client.local import LocalAgent
from vnet.lab.daemons import READY_TIMEOUT_S
from vnet.lab.errors import LabError
from vnet.lab.guests import LabGuests

POLL_S = 0.005


def migrate(lab: LabGuests, vm: str, to: str, *, pause_s: float, announce: bool) -> None:
    """Migrate a running VM. Raises ClientError where the controller refuses, LabError where a step takes too long."""
    unit, source = Unit.of_vm(vm), lab.location(vm)
    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        client.prepare(unit, to)
        lab.plug(vm, to)
        _wait_phase(client, unit, "prepared")
        with ExitStack() as stack:
            # The toolstack on the destination has its connection to the agent before, so that its word follows at once.
            agent = stack.enter_context(LocalAgent(str(lab.daemons.agent_socket(to)))) if pause_s else None
            if agent or lab.driver.COPIES_LAG:
                lab.pause(vm)
                lab.driver.land()  # the guest had one copy of these frames; the other must meet the port that is still held
            if agent:
                agent.call("switch", {"vm": vm})
                time.sleep(pause_s)
            lab.run(vm, to, announce=announce, resume=True)
        if not announce:
            client.activate(unit)
        _wait_phase(client, unit, "active")
        client.finish(unit)
    if source is not None and source != to:
        lab.unplug(vm, source)


def _wait_phase(client: Client, unit: Unit, phase: str) -> None:
    """Wait until a migration is in this phase. Raises LabError with the unmet conditions."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (migration := client.migration(unit)).phase != phase:
        if time.monotonic() > deadline:
            raise LabError(f"{unit.id} is {migration.phase}, not {phase}: {'; '.join(migration.waiting)}")
        time.sleep(POLL_S)
