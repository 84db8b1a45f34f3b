"""A real pool database for tests, and what agents write into it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from ovsctl.ovsdb import Delete, Insert, Mutate, Operation, Update, Wait
from tests.polling import LIMIT_S, until
from tests.servers import OvsdbServer, ovsdb_server, run_dir
from vnet.client import AsyncClient
from vnet.controller.embedded import EmbeddedDatabase
from vnet.db import changes
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.rows import SCHEMA_TEXT, to_columns
from vnet.db.writes import configuration_write
from vnet.objects import AgentStatus, Binding, BindingState, Event, Host, Network, NetworkType, Pool, Uplink, Vif

SCHEMA: dict[str, Any] = json.loads(SCHEMA_TEXT)
HOSTS = ("xen1", "xen2", "xen3")
FIRST = [
    changes.InsertObject(Pool("test")),
    *(
        changes.InsertObject(Host(name, f"10.99.0.{i}", (Uplink("trunk0", ("eth1",)),)))
        for i, name in enumerate(HOSTS, 1)
    ),
    changes.InsertObject(Network("tenant", NetworkType.VXLAN, 1, 1450, key=5001)),
    changes.InsertObject(Network("prod", NetworkType.VLAN, 2, 1500, key=5002, tag=120, uplink="trunk0")),
]


@contextlib.contextmanager
def pool_server(schema: dict[str, Any] = SCHEMA) -> Iterator[OvsdbServer]:
    with ovsdb_server(schema) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(remote: str, *, filled: bool = True, **options: Any) -> AsyncIterator[PoolDatabase]:
    """A connection to the pool at `remote`, with three hosts and two networks unless they are there."""
    database = PoolDatabase([remote], **options)
    await database.open()
    try:
        if filled and database.mirror.state.pool is None:
            await database.write(configuration_write(FIRST, None))
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def embedded(**options: Any) -> Iterator[EmbeddedDatabase]:
    """Directories for an embedded database, whose server (it outlives its starter) ends with the test."""
    with run_dir() as path:
        database = EmbeddedDatabase(path / "run", path / "state", **options)
        try:
            yield database
        finally:
            stop_embedded(database)


def stop_embedded(database: EmbeddedDatabase, sig: int = signal.SIGKILL) -> None:
    """Ends the server, if it runs. Returns once its connections are closed, which its clients may hear of later."""
    database.proxy.stop()
    pid = database.pid()
    command = Path(f"/proc/{pid}/cmdline")
    if pid is None or not command.exists() or str(database.pidfile) not in command.read_text():
        return
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, sig)
        waiting = select.poll()  # not select(), which takes no descriptor above 1023
        waiting.register(process, select.POLLIN)
        assert waiting.poll(1000 * LIMIT_S), f"ovsdb-server {pid} has not ended"
    finally:
        os.close(process)


class FakeAgent:
    """Writes what an agent of `host` would, by the rules that agents keep: it raises a VIF's epoch as it claims it.

    Its connection is not the controller's. With `client`, each write returns once the controller has seen it.
    """

    def __init__(self, database: PoolDatabase, host: str, client: AsyncClient | None = None) -> None:
        self.database, self.host, self.client = database, host, client

    async def beat(self, generation: int = 0, ago_ms: int = 0, **problems: str) -> None:
        status = AgentStatus(
            self.host, generation, now_ms() - ago_ms, 1, problems=problems, switch=f"switch of {self.host}"
        )
        where = [("host", "==", self.host)]
        await self._write(Delete("Agent", where), Insert("Agent", to_columns(status)))

    async def claim(self, id: str, *, ready: bool = True) -> None:
        assert await self.database.wait_for(lambda view: id in view.state.vifs, 10)
        vif: Vif = self.database.mirror.state.vifs[id]
        state = BindingState.HELD if vif.incoming == self.host else BindingState.ACTIVE
        epoch = vif.epoch + 1
        binding = Binding(
            id,
            self.host,
            vif.network,
            vif.mac,
            epoch,
            state,
            vif.addresses,
            ready=ready,
            since=now_ms(),
            groups=vif.groups,
        )
        where = [("id", "==", id)]
        await self._write(
            Wait("Vif", where, ["epoch"], [{"epoch": vif.epoch}]),
            Update("Vif", where, {"epoch": epoch}),
            Insert("Binding", to_columns(binding)),
        )

    async def acknowledge(self, id: str, of: str) -> None:
        where = [("vif", "==", id), ("host", "==", of)]
        await self._write(Mutate("Binding", where, [("acked", "insert", [self.host])]))

    async def set_state(self, id: str, state: BindingState) -> None:
        where = [("vif", "==", id), ("host", "==", self.host)]
        await self._write(Update("Binding", where, {"state": state.value, "since": now_ms()}))

    async def release(self, id: str) -> None:
        await self._write(Delete("Binding", [("vif", "==", id), ("host", "==", self.host)]))

    async def _write(self, *operations: Operation) -> None:
        if self.client is None:
            await self.database.transact(*operations)
            return
        mark = str(uuid4())
        await self.database.transact(*operations, Insert("Event", to_columns(Event(now_ms(), "seen", mark))))
        client = self.client

        async def seen() -> bool:
            return mark in {event.text for event in await client.events(5, kind="seen")}

        await until(seen, "the controller sees the write")
