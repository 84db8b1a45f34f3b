"""A toolstack that moves VMs about while things break: it writes the pool's rows as the controller does, and plugs the ports.

One rule: a call ends when it is done or given up, whatever is broken meanwhile, and leaves nothing half done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from ovsctl.ovsdb import (
    ConstraintViolation,
    Delete,
    Insert,
    NotConnected,
    Operation,
    OutcomeUnknown,
    OvsdbClient,
    Select,
    Update,
)
from tests.polling import until
from tests.vnet.acknowledged import acknowledged
from vnet.db.rows import to_columns
from vnet.lab import Lab
from vnet.objects import LockingMode, Vif

PREPARED_S = 2.0  # how long a migration waits before it is given up
ACTIVE_S = 60.0
ALTER = 0.15  # how often a VM is changed where it is


@dataclass
class Toolstack:
    """`where`: each of its VMs and the host that it runs on, None where it is not plugged. `touched`: the hosts that it
    changed ports of since somebody emptied it. `silent`: the VMs that were started and have sent nothing yet."""

    lab: Lab
    client: OvsdbClient
    rng: random.Random
    vifs: dict[str, list[Vif]]
    where: dict[str, str | None] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    _created: int = 0

    # -- what it does; each is told as text

    def pick(self) -> tuple[str, Callable[[], Awaitable[None]]]:
        """One change at random, described, and what carries it out."""
        hosts = [host.name for host in self.lab.spec.hosts]
        vm = self.rng.choice(sorted(self.where))
        here = self.where[vm]
        if self.rng.random() < 0.25:
            host = self.rng.choice(hosts)
            return f"create a VM on {host}, delete {vm}", lambda: self._renew(vm, host)
        if self.rng.random() < ALTER:
            mode = self.rng.choice(list(LockingMode)[:2])
            address = f"10.9.0.{self.rng.randrange(1, 255)}"
            return f"make {vm} {mode.value}, with address {address}", lambda: self._alter(vm, mode, address)
        if here is None:
            host = self.rng.choice(hosts)
            return f"plug {vm} into {host}", lambda: self._plug(vm, host)
        if self.rng.random() < 0.3:
            return f"unplug {vm} from {here}", lambda: self._unplug(vm)
        to = self.rng.choice([host for host in hosts if host != here])
        if self.rng.random() < 0.2:
            return f"prepare {vm} from {here} to {to} and abort", lambda: self._migrate(vm, to, abort=True)
        return f"migrate {vm} from {here} to {to}", lambda: self._migrate(vm, to, abort=False)

    async def _plug(self, vm: str, host: str) -> None:
        await self._in_lab(self.lab.plug, vm, host)
        await self._in_lab(self.lab.run, vm, host)
        self.where[vm] = host
        self.silent.add(vm)
        await self._set(vm, host=host)

    async def _alter(self, vm: str, mode: LockingMode, address: str) -> None:
        new = [replace(vif, addresses=(address,), locking_mode=mode) for vif in self.vifs[vm]]
        await self._set(vm, addresses=frozenset({address}), locking_mode=mode.value)
        self.vifs[vm] = new

    async def _unplug(self, vm: str) -> None:
        await self._in_lab(self.lab.stop, vm)
        self.silent.discard(vm)
        self.where[vm] = None
        await self._set(vm, host=None)

    async def _renew(self, old: str, host: str) -> None:
        """A VM goes, its rows before its ports, and another one comes, its ports before its rows."""
        self._created += 1
        new, number = f"new{self._created}", 100 + self._created
        vifs = [
            Vif(f"{new}/{n}", vif.network, f"0a:00:00:0{n + 1}:01:{number:02x}", vm=new, index=n, host=host,
                addresses=(f"10.{n + 1}.1.{number}",))
            for n, vif in enumerate(self.vifs[old])
        ]  # fmt: skip
        await self._write(*(Delete("Vif", (("id", "==", vif.id),)) for vif in self.vifs[old]))
        await self._in_lab(self.lab.remove_vm, old)
        self.silent.discard(old)
        del self.where[old], self.vifs[old]
        await self._in_lab(self.lab.add_vm, new, vifs, host)
        self.vifs[new], self.where[new] = vifs, host
        await self._in_lab(self.lab.plug, new, host)
        await self._in_lab(self.lab.run, new, host)
        self.silent.add(new)
        await self._write(*(Insert("Vif", to_columns(vif)) for vif in vifs))

    async def _migrate(self, vm: str, to: str, *, abort: bool) -> None:
        source = self.where[vm]
        assert source is not None
        await self._set(vm, incoming=to)
        await self._in_lab(self.lab.plug, vm, to)
        prepared = await self._until(lambda: self._prepared(vm, source, to), PREPARED_S)
        if abort or not prepared:
            where = (("host", "==", to), ("state", "!=", "active"))
            await self._write(
                *(Update("Vif", (("id", "==", vif.id),), {"incoming": None}) for vif in self.vifs[vm]),
                *(Delete("Binding", (("vif", "==", vif.id), *where)) for vif in self.vifs[vm]),
            )
            await self._in_lab(self.lab.unplug, vm, to)
            return
        await self._in_lab(self.lab.run, vm, to, True)
        self.silent.discard(vm)
        self.where[vm] = to
        assert await self._until(lambda: self._active(vm, to), ACTIVE_S), f"{vm} never became active on {to}"
        await self._set(vm, host=to, incoming=None)
        await self._in_lab(self.lab.unplug, vm, source)

    # -- how

    async def _prepared(self, vm: str, source: str, to: str) -> bool:
        """Ready at the destination, and acknowledged by the source: other senders may be dead."""
        rows = await self._bindings(vm, to)
        if len(rows) != len(self.vifs[vm]) or not all(row["ready"] for row in rows):
            return False
        return all([source in await acknowledged(self.client, row) for row in rows])

    async def _active(self, vm: str, to: str) -> bool:
        rows = await self._bindings(vm, to)
        return len(rows) == len(self.vifs[vm]) and all(row["state"] == "active" for row in rows)

    async def _bindings(self, vm: str, host: str) -> list[dict[str, object]]:
        wanted = (Select("Binding", (("vif", "==", vif.id), ("host", "==", host))) for vif in self.vifs[vm])
        return [row for rows in await self._write(*wanted) for row in rows]

    async def _set(self, vm: str, **columns: object) -> None:
        await self._write(*(Update("Vif", (("id", "==", vif.id),), columns) for vif in self.vifs[vm]))

    async def _write(self, *operations: Operation) -> list[list[dict[str, object]]]:
        """A transaction that may be repeated, till it is answered."""
        while True:
            try:
                return await self.client.transact(*operations)
            except (NotConnected, OutcomeUnknown):
                await self.client.wait_connected()
            except ConstraintViolation:  # of an insert whose answer was lost
                return []

    async def _until(self, condition: Callable[[], Awaitable[bool]], limit_s: float) -> bool:
        """Whether the condition came to hold within its limit."""
        try:
            await until(condition, "", limit_s)
        except TimeoutError:
            return False
        return True

    async def _in_lab(self, function: Callable[..., None], *args: object) -> None:
        named = (*args, self.where.get(str(args[0])))
        self.touched.update(host.name for host in self.lab.spec.hosts if host.name in named)
        await asyncio.to_thread(function, *args)
