"""A guest that has just moved and has not announced itself, on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.polling import wait_until
from vnet.client import Client, Unit
from vnet.lab import Lab
from vnet.sim import SimPool
from vnet.testing import PoolUnderTest


@contextmanager
def arrived(pool: PoolUnderTest, vm: str, to: str) -> Iterator[None]:
    """A migration that is prepared, with the guest on `to` already: its port there is held until it announces itself, as it must.
    Afterwards the guest is where it was."""
    source = pool.location(vm)
    assert source is not None
    if isinstance(pool, SimPool):
        pool.prepare(vm, to)
        pool.run(vm, to)
        yield
        pool.activate(vm)
        pool.finish(vm)
    elif isinstance(pool, Lab):
        with Client(f"unix:{pool.daemons.controller_socket}") as client:
            unit = Unit.of_vm(vm)
            client.prepare(unit, to)
            pool.plug(vm, to)
            wait_until(lambda: client.migration(unit).phase == "prepared", "prepared")
            pool.run(vm, to)
            yield
            wait_until(lambda: client.migration(unit).phase == "active", "active")
            client.finish(unit)
        pool.unplug(vm, source)
    pool.migrate(vm, source)
