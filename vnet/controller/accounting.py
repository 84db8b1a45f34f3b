"""What VIFs have sent and got, as hosts keep it in the pool database, for who asks; and what hosts have of VIFs that left them, taken over by the leader.

One rule: only what the pool database has is told, so a figure never goes back; it is as old as its host's last write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from ovsctl.ovsdb import Delete, Select, WaitTimedOut
from vnet import api
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.presenters import timestamp
from vnet.controller.service import refusing_pool_errors
from vnet.db.accounting import FIELDS, ZERO, Counts, HostAccount, VifAccount, carried, decoded, folded, totals
from vnet.db.database import PoolDatabase
from vnet.db.rows import from_row
from vnet.objects import Binding, Host, InvalidValue, Vif

Write = Callable[..., Awaitable[None]]


async def accounts(database: PoolDatabase) -> tuple[list[HostAccount], list[VifAccount]]:
    """The rows that can be read. Raises PoolError."""
    hosts, vifs = await database.transact(Select(HostAccount.NOUN.table), Select(VifAccount.NOUN.table))
    return await asyncio.to_thread(lambda: (_read(HostAccount, hosts), _read(VifAccount, vifs)))


def _read(declared: Any, rows: list[Any]) -> list[Any]:
    found = []
    for row in rows:
        try:
            found.append(from_row(declared, row))
        except InvalidValue:
            continue  # a host that writes nonsense has counted nothing
    return found


async def accounting(call: Call[None]) -> api.Accounting:
    """What VIFs have sent and got since they were made, wherever they ran: with VIFs of the pool, and with stations outside. Hosts write it once a minute. Who asks within 5 s of another gets the same answer.

    Raises NotFound, Unavailable.
    """
    service, seen = call.service, call.service.seen()
    id = call.query.get("vif", "")
    if id:
        find("vif", id, seen.state.vifs)

    async def read() -> dict[str, tuple[Counts, int]]:
        return await asyncio.to_thread(totals, *await accounts(service.database))

    with refusing_pool_errors():
        found = await service.accounts.get(read)
    wanted = [id] if id else sorted(seen.state.vifs)
    return api.Accounting(vifs={vif: _shown(*found.get(vif, (ZERO, 0))) for vif in wanted})


def _shown(counts: Counts, written: int) -> api.VifAccount:
    return api.VifAccount(written=timestamp(written) if written else None, **dict(zip(FIELDS, counts, strict=True)))


async def take_over(database: PoolDatabase, write: Write) -> int:
    """Takes over what hosts have of VIFs that left them: of how many. write: a write that only the leader may do. Raises PoolError, OvsdbError."""
    mirror, state = database.mirror, database.view().state
    if mirror.lacks(Binding, Vif, Host):
        return 0  # what cannot be read is not known to be gone
    hosts, vifs = await accounts(database)
    kept = {it.vif: decoded(it.counted) for it in vifs}
    count = 0
    for host in hosts:
        known = host.host in state.hosts
        left = [vif for vif in host.counted if not known or (vif, host.host) not in state.bindings]
        there_are = {vif: kept.get(vif, ZERO) for vif in left if vif in state.vifs}
        operations, new = folded(host, left, there_are, known=known)
        if operations:
            with suppress(WaitTimedOut):  # the host has written meanwhile: the next round takes it over
                await write(*operations, *carried(new, frozenset(new) & kept.keys()))
                kept |= new
                count += len(new)
    if gone := [Delete(VifAccount.NOUN.table, (("vif", "==", vif),)) for vif in kept if vif not in state.vifs]:
        await write(*gone)
    return count
