"""A migration step by step, on every engine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.polling import wait_until
from vnet.client import Client, Unit
from vnet.lab import Lab
from vnet.sim import SimPool
from vnet.testing import PoolUnderTest


class Move:
    """A migration of a VM, as a toolstack drives it."""

    def __init__(self, pool: PoolUnderTest, vm: str, to: str) -> None:
        self.pool, self.vm, self.to = pool, vm, to
        self.unit = Unit.of_vm(vm)
        source = pool.location(vm)
        assert source is not None
        self.source = source

    def prepare(self) -> None:
        """Until every sender sends to both hosts."""
        if isinstance(self.pool, SimPool):
            self.pool.prepare(self.vm, self.to)
        elif isinstance(self.pool, Lab):
            with self._client() as client:
                client.prepare(self.unit, self.to)
                self.pool.plug(self.vm, self.to)
                wait_until(lambda: client.migration(self.unit).phase == "prepared", "prepared")

    def arrive(self, *, announce: bool = False) -> None:
        """The guest runs at its destination."""
        assert isinstance(self.pool, SimPool | Lab)
        self.pool.run(self.vm, self.to, announce)

    def activate(self) -> None:
        """The toolstack's word for a guest that says nothing, and its port is open."""
        if isinstance(self.pool, SimPool):
            self.pool.activate(self.vm)
        elif isinstance(self.pool, Lab):
            with self._client() as client:
                client.activate(self.unit)
            self.pool.wait_ready(self.vm)

    def finish(self) -> None:
        """The guest has announced itself, or was activated."""
        if isinstance(self.pool, SimPool):
            self.pool.activate(self.vm)
            self.pool.finish(self.vm)
        elif isinstance(self.pool, Lab):
            with self._client() as client:
                self._wait_active(client)
                client.finish(self.unit)
            self.pool.unplug(self.vm, self.source)

    def _wait_active(self, client: Client) -> None:
        wait_until(lambda: client.migration(self.unit).phase == "active", "active")

    def _client(self) -> Client:
        assert isinstance(self.pool, Lab)
        return Client(f"unix:{self.pool.daemons.controller_socket}")


@contextmanager
def arrived(pool: PoolUnderTest, vm: str, to: str) -> Iterator[None]:
    """A migration that is prepared, with the guest on `to` already: its port there is held until it announces itself, as it must.
    Afterwards the guest is where it was."""
    move = Move(pool, vm, to)
    move.prepare()
    move.arrive()
    yield
    move.finish()
    pool.migrate(vm, move.source)


@contextmanager
def still(pool: PoolUnderTest, *hosts: str) -> Iterator[None]:
    """The agents of these hosts do nothing."""
    if isinstance(pool, Lab):
        for host in hosts:
            pool.daemons.signal(host, signal.SIGSTOP)
    try:
        yield
    finally:
        if isinstance(pool, Lab):
            for host in hosts:
                pool.daemons.signal(host, signal.SIGCONT)
