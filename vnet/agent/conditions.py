"""The conditions of the monitor: which rows of the pool this host asks the database for.

One rule: a needed row is named at once, and one of no use goes some time later, with those of many other unplugs. For each change
of a condition ovsdb-server looks at the whole table: 0.13 s for 100,000 rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from typing import Any, Final

from ovsctl.ovsdb import Monitor, Replica
from vnet.agent.pool_replica import BINDING_COLUMNS, POOL_COLUMNS, ConditionNames, PoolReplica

TRIM_AFTER_S = 2.0
# With the column that the condition is on: where that comes to be monitored by a change of condition, ovsdb-server 3.1.0 dies of SIGSEGV.
ASKED_COLUMNS = ("id", "network", "host", "incoming", "stays")

Condition = tuple[tuple[str, str, Any], ...] | bool


def monitors(me: str, ports: Iterable[str]) -> dict[str, Monitor]:
    """The rows to replicate before anything is known but the host's name and the VIFs of its ports."""
    return {
        "Pool": Monitor(columns=POOL_COLUMNS),
        "Host": Monitor(columns=("name", "address", "owner")),
        "TunnelKey": Monitor(),  # two rows a host, which change when keys do
        "Uplink": Monitor(where=(("host", "==", me),)),
        "Vif": Monitor(where=vif_condition(me, ports)),
        "QosClass": Monitor(),  # a few rows, of which no condition need follow
        "AddressSet": Monitor(),
        "PlugBridge": Monitor(),
        "FlowCollector": Monitor(),
        "Mirror": Monitor(),
        "Network": Monitor(where=False),
        "SecurityGroup": Monitor(where=group_condition(())),
        "Binding": Monitor(columns=BINDING_COLUMNS, where=(("host", "==", me),)),
    }


def asked_monitors(networks: Iterable[str]) -> dict[str, Monitor]:
    """Where each VIF of the networks that a host needs is asked for, wherever that is. It is a monitor of its own, since of one table all rows of a monitor
    have the same columns: claims, which change others, are not sent to it. The pool's row tells whether what comes is of the pool that is followed."""
    return {
        "Pool": Monitor(columns=("id", "generation")),
        "Vif": Monitor(columns=ASKED_COLUMNS, where=asked_condition(networks)),
    }


def named_monitors(me: str, named: ConditionNames) -> dict[str, Monitor]:
    """The rows to replicate where all that this host needs is known by name."""
    networks, bindings = network_conditions(me, named.networks)
    return monitors(me, named.vifs) | {
        "Network": Monitor(where=networks),
        "Binding": Monitor(columns=BINDING_COLUMNS, where=bindings),
        "SecurityGroup": Monitor(where=group_condition(named.groups)),
    }


def vif_condition(me: str, ports: Iterable[str]) -> Condition:
    """The VIFs a host needs: those wanted here, those coming here, those whose port is here."""
    return (("host", "==", me), ("incoming", "==", me), *(("id", "==", vif) for vif in sorted(ports)))


def network_conditions(me: str, networks: Iterable[str]) -> tuple[Condition, Condition]:
    """The conditions on Network and Binding for the networks a host needs."""
    ordered = sorted(networks)
    named = tuple(("name", "==", name) for name in ordered)
    bound = tuple(("network", "==", name) for name in ordered)
    return named or False, (("host", "==", me), *bound)


def asked_condition(networks: Iterable[str]) -> Condition:
    """The VIFs of the networks a host needs."""
    return tuple(("network", "==", name) for name in sorted(networks)) or False


def group_condition(groups: Iterable[str]) -> Condition:
    """The security groups a host needs. Of those that their rules name it needs no rows: bindings say who is in them. Groups of a tier above
    the VIF's are few, and on every host at any time: so a VIF waits for none of them."""
    return (("tier", "!=", ""), *(("name", "==", name) for name in sorted(groups)))


def next_named(named: Set[str], needed: Set[str], useful: Set[str], *, trim: bool) -> Set[str]:
    """The names for a condition: all that is needed, at once. A name of no use goes when others come, or with `trim`."""
    if needed <= named and not (trim and named - useful):
        return named
    return needed | (named & useful)


class Conditions:
    """Follows what this host needs.

    ports: the VIFs that have a port here. on_answer: called once all rows that were needed have come, or do not exist.
    """

    def __init__(self, pool: PoolReplica, ports: Callable[[], Set[str]], on_answer: Callable[[], None]) -> None:
        self.count = 0  # how often the server looked at a whole table, for tests
        self.waiting = False  # for the rows that were asked for last
        self._pool: Final = pool
        self._ports: Final = ports
        self._on_answer: Final = on_answer
        self._look: Final = asyncio.Event()

    def look(self) -> None:
        """Has the conditions compared with what is needed now."""
        self._look.set()

    async def follow(self, replica: Replica, asked: Replica, *, trim: bool = False) -> bool:
        """Asks for the rows that are needed by now, with `trim` for no others; whether that was anything new. asked: the replica of asked_monitors."""
        pool, named, useful = self._pool, self._pool.named, self._useful()
        vifs = {vif for vif in useful.vifs if pool.must_name(vif)}
        wanted = ConditionNames(
            next_named(named.vifs, vifs, useful.vifs, trim=trim),
            next_named(named.networks, useful.networks, useful.networks, trim=trim),
            next_named(named.groups, useful.groups, useful.groups, trim=trim),
        )
        changed: list[tuple[Replica, str, Condition]] = []
        if wanted.vifs != named.vifs:
            changed.append((replica, "Vif", vif_condition(pool.me, wanted.vifs)))
        if wanted.networks != named.networks:
            networks, bindings = network_conditions(pool.me, wanted.networks)
            # First: bindings are followed by it.
            changed.append((asked, "Vif", asked_condition(wanted.networks)))
            changed += [(replica, "Network", networks), (replica, "Binding", bindings)]
        if wanted.groups != named.groups:
            changed.append((replica, "SecurityGroup", group_condition(wanted.groups)))
        self.count += len(changed)
        self.waiting = bool(changed)
        await asyncio.gather(*(of.set_condition(table, where) for of, table, where in changed))
        pool.named, self.waiting = wanted, False
        return bool(changed)

    def _useful(self) -> ConditionNames:
        """The VIFs, networks and security groups that conditions may name."""
        pool = self._pool
        vifs = self._ports() | pool.mine.keys() | pool.mirror_targets()
        return ConditionNames(vifs, pool.wanted_networks(), pool.wanted_groups())

    async def run(self, replica: Replica, asked: Replica) -> None:
        """Follows for ever."""
        loop = asyncio.get_running_loop()
        trim_at: float | None = None
        while True:
            trim = False
            try:
                async with asyncio.timeout_at(trim_at):
                    await self._look.wait()
            except TimeoutError:
                trim, trim_at = True, None
            self._look.clear()
            while await self.follow(replica, asked, trim=trim):
                trim = False
            self._pool.touch(self._pool.settle_doubts() | self._pool.settle_waiting())
            self._on_answer()
            if trim_at is None and self._has_useless():
                trim_at = loop.time() + TRIM_AFTER_S

    def _has_useless(self) -> bool:
        named, useful = self._pool.named, self._useful()
        return bool(named.vifs - useful.vifs or named.networks - useful.networks or named.groups - useful.groups)
