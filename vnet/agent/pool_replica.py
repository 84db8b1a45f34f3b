"""The agent's replica of the pool: rows folded into the compiler, and the VIFs that changed since the last turn.

One rule: the replica holds what this host needs and no more: its own rows, the VIFs it has ports for or is to have, their
networks, the bindings on those, and the security groups they are in (conditions.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from ovsctl.ovsdb import Change, Replica, Row, Uuid, Where, by_uuid
from vnet.compile import Compiler
from vnet.db.rows import by_key, from_row
from vnet.grammar.declare import attrs_of
from vnet.objects import (
    Binding,
    BindingState,
    Host,
    InvalidValue,
    Network,
    Owner,
    Pool,
    QosClass,
    SecurityGroup,
    Uplink,
    Vif,
)

log = logging.getLogger(__name__)

# The columns of a binding that peers need. The others are for the controller: were they monitored, each acknowledgement of
# one host would be sent to all others. Table Agent is not monitored at all: the server would look through the conditions of
# every agent at every heartbeat of any.
UNMONITORED = {"ready": False, "acked": frozenset(), "since": 0}
BINDING_COLUMNS = tuple(name for name in attrs_of(Binding) if name not in UNMONITORED)
TABLES = ("Pool", "Host", "Uplink", "QosClass", "Network", "SecurityGroup", "Vif", "Binding")


@dataclass(frozen=True, slots=True)
class ConditionNames:
    """The objects that the monitor's conditions name, and that the pool has answered for."""

    vifs: Set[str] = frozenset()
    networks: Set[str] = frozenset()  # their rows and their bindings
    groups: Set[str] = frozenset()


class PoolReplica:
    """Folds changes of rows into a compiler.

    on_arrival: called with a VIF whose binding here somebody else has made active. overlay: bindings of this host that were decided on and are not in the database yet; they win over its rows.
    """

    def __init__(self, compiler: Compiler, on_arrival: Callable[[str], None]) -> None:
        self.compiler: Final = compiler
        self._on_arrival: Final = on_arrival
        self.touched: set[tuple[str, str]] = set()  # (network, VIF) of all that changed since the last turn
        self.overlay: dict[str, Binding] = {}
        self.mine: dict[str, Binding] = {}  # this host's bindings as the database has them, by VIF id
        self.bad_rows: dict[str, str] = {}
        self.named = ConditionNames()
        self.waiting: dict[str, Vif] = {}  # VIFs as they are once the security groups they have joined are known
        self.doubtful: set[str] = set()  # VIFs here whose row went: deleted, or wanted elsewhere only
        self.rows_read = 0  # for tests to count
        self._rows: dict[tuple[str, ...], Uuid] = {}  # (VIF) and (VIF, host) to the UUID of its row
        self._uplinks: dict[str, Uplink] = {}

    @property
    def me(self) -> str:
        return self.compiler.view.me

    @property
    def generation(self) -> int:
        """The pool's generation; 0 while it has no row."""
        pool = self.compiler.view.pool
        return pool.generation if pool is not None else 0

    def start(self, replica: Replica) -> None:
        """Takes everything a replica holds."""
        for table in TABLES:
            self.fold(Change(table, uuid, None, row) for uuid, row in replica[table].items())

    def fold(self, batch: Iterable[Change]) -> None:
        """Takes one transaction's changes. A row that cannot be taken in is kept out, and remembered in `bad_rows`."""
        ordered = sorted(batch, key=lambda change: change.new is not None)
        for change in ordered:
            self.rows_read += 1
            try:
                self._fold(change)
                self.bad_rows.pop(change.uuid, None)
            except InvalidValue as error:
                self.bad_rows[str(change.uuid)] = f"{change.table}: {error}"
            except Exception as error:  # rows come from outside: a fault that nobody foresaw costs its row alone
                log.exception("row %s of table %s", change.uuid, change.table)
                self.bad_rows[str(change.uuid)] = f"{change.table}: {type(error).__name__}: {error}"
        for change in ordered:
            for row in (change.old, change.new):
                if row is not None:
                    self.touched.update(self._concerned(change.table, row))

    def _fold(self, change: Change) -> None:
        old, new = change.old, change.new
        match change.table:
            case "Pool":
                self._pool(new)
            case "Host":
                self._host(old, new)
            case "Uplink":
                self._uplink(old, new)
            case "QosClass":
                self._qos(old, new)
            case "Network":
                self._network(old, new)
            case "SecurityGroup":
                self._group(old, new)
            case "Vif":
                self._vif(old, new)
            case "Binding":
                self._binding(old, new)

    def _concerned(self, table: str, row: Row) -> Iterator[tuple[str, str]]:
        """(network, VIF) of the VIFs whose bindings a changed row concerns."""
        view = self.compiler.view
        if table == "Binding":
            yield row["network"], row["vif"]
        elif table == "Vif":
            yield row["network"], row["id"]
        elif table == "Network":
            yield from ((row["name"], vif.id) for vif in view.local(row["name"]))
        elif table == "SecurityGroup":
            yield from ((vif.network, vif.id) for vif in view.vifs.values() if row["name"] in vif.groups)

    def touch(self, vifs: Iterable[str]) -> None:
        """Has VIFs decided on in the next turn."""
        known = self.compiler.view.vifs
        self.touched.update((known[vif].network if vif in known else "", vif) for vif in vifs)

    def touch_everything(self, ports: Iterable[str]) -> None:
        view = self.compiler.view
        self.touched.update((binding.network, binding.vif) for name in view.networks for binding in view.bindings(name))
        self.touch({*view.vifs, *ports, *self.mine})

    def must_name(self, vif: str) -> bool:
        """Whether a VIF's row comes only if the condition names it: it comes by itself if it is wanted here or on its way."""
        known = self.compiler.view.vifs.get(vif)
        return known is None or vif in self.doubtful or self.me not in (known.host, known.incoming)

    def settle_doubts(self) -> set[str]:
        """VIFs whose rows did not come though the condition names them by now, so they are deleted; and those that left."""
        gone = {vif for vif in self.doubtful if vif in self.named.vifs or not self._is_here(vif)}
        self.doubtful -= gone
        for vif in gone:
            self.compiler.inputs.drop_vif(vif)
        return gone

    def wanted_networks(self) -> set[str]:
        """The networks of the VIFs that are, are to be, or were here."""
        return {vif.network for vif in self.compiler.view.vifs.values()} | {b.network for b in self.mine.values()}

    def wanted_groups(self) -> set[str]:
        """The security groups of the VIFs that are, or are to be, here."""
        vifs = (*self.compiler.view.vifs.values(), *self.waiting.values())
        return {group for vif in vifs for group in vif.groups}

    def settle_waiting(self) -> set[str]:
        """VIFs whose new groups have come by now, or do not exist."""
        ready = {vif.id: vif for vif in self.waiting.values() if not self._must_wait(vif)}
        for vif in ready.values():
            del self.waiting[vif.id]
            self.compiler.inputs.set_vif(vif)
        return set(ready)

    def _must_wait(self, vif: Vif) -> bool:
        """Whether a VIF that runs here has joined a group whose rules have not come yet: meanwhile it stays as it was."""
        view = self.compiler.view
        known = view.vifs.get(vif.id)
        if known is None or known.network != vif.network:
            return False
        return not self.named.groups >= set(vif.groups) - view.groups.keys()

    def locate(self, value: Vif | Binding) -> Where:
        """The row of a VIF or a binding: by its UUID where it is known, which costs the server nothing, else by its key."""
        key = (value.id,) if isinstance(value, Vif) else (value.vif, value.host)
        uuid = self._rows.get(key)
        return by_uuid(uuid) if uuid is not None else by_key(value)

    def set_overlay(self, binding: Binding) -> None:
        """This host has decided on its binding of a VIF: it holds here, whatever the database says so far."""
        self.overlay[binding.vif] = binding
        self.compiler.inputs.set_binding(binding)

    def clear_overlay(self, vif: str) -> None:
        """The database knows better: its row, or none, holds again."""
        decided = self.overlay.pop(vif, None)
        if decided is not None:
            actual = self.mine.get(vif)
            if actual is not None:
                self.compiler.inputs.set_binding(actual)
            else:
                self.compiler.inputs.drop_binding(decided.network, vif, self.me)

    def _pool(self, new: Row | None) -> None:
        if new is None:
            self.compiler.inputs.set_pool(None)
            return
        columns = _columns(new, "name", "underlay_mtu", "locking_mode", "id", "generation")
        self.compiler.inputs.set_pool(from_row(Pool, {**columns, "revision": 0}))

    def _host(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self.compiler.inputs.drop_host(old["name"])
            return
        uplinks = tuple(self._uplinks.values()) if new["name"] == self.me else ()
        self.compiler.inputs.set_host(from_row(Host, new, uplinks=uplinks))

    def _uplink(self, old: Row | None, new: Row | None) -> None:
        if old is not None and (new is None or new["name"] != old["name"]):
            self._uplinks.pop(old["name"], None)
        if new is not None:
            self._uplinks[new["name"]] = from_row(Uplink, new)
        known = self.compiler.view.hosts.get(self.me)
        if known is not None:
            ordered = tuple(sorted(self._uplinks.values(), key=lambda uplink: uplink.name))
            self.compiler.inputs.set_host(Host(known.name, known.address, ordered, Owner(known.owner)))

    def _network(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self.compiler.inputs.drop_network(old["name"])
        else:
            self.compiler.inputs.set_network(from_row(Network, new))

    def _qos(self, old: Row | None, new: Row | None) -> None:
        if new is not None:
            self.compiler.inputs.set_qos(from_row(QosClass, new))
        elif old is not None:
            self.compiler.inputs.drop_qos(old["name"])

    def _group(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self.compiler.inputs.drop_group(old["name"])
        else:
            self.compiler.inputs.set_group(from_row(SecurityGroup, new))

    def _vif(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self._rows.pop((old["id"],), None)
                self._vif_gone(old["id"])
        else:
            self.doubtful.discard(new["id"])
            self._rows[new["id"],] = new.uuid
            vif = from_row(Vif, new)
            if self._must_wait(vif):
                self.waiting[vif.id] = vif
            else:
                self.waiting.pop(vif.id, None)
                self.compiler.inputs.set_vif(vif)

    def _vif_gone(self, vif: str) -> None:
        """A row that is no longer sent was deleted if the condition names it; else it may only be wanted elsewhere by now."""
        self.waiting.pop(vif, None)
        if vif not in self.named.vifs and self._is_here(vif):
            self.doubtful.add(vif)
            known = self.compiler.view.vifs.get(vif)
            if known is not None and known.awaited:  # not here, or its row would have come
                self.compiler.inputs.set_vif(replace(known, awaited=False))
        else:
            self.compiler.inputs.drop_vif(vif)

    def _is_here(self, vif: str) -> bool:
        return vif in self.compiler.view.ports or vif in self.mine

    def _binding(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is None:
                return
            vif, host, network = old["vif"], old["host"], old["network"]
            self._rows.pop((vif, host), None)
            if host == self.me:
                self.mine.pop(vif, None)
                if vif in self.overlay:
                    return
            self.compiler.inputs.drop_binding(network, vif, host)
            return
        if old is not None and old["network"] != new["network"]:
            self.compiler.inputs.drop_binding(old["network"], old["vif"], old["host"])
        self._rows[new["vif"], new["host"]] = new.uuid
        binding = from_row(Binding, {**_columns(new, *BINDING_COLUMNS), **UNMONITORED})
        if binding.host == self.me:
            self.mine[binding.vif] = binding
            self._note_arrival(binding)
            decided = self.overlay.get(binding.vif)
            if decided is not None:
                if (decided.epoch, decided.state) != (binding.epoch, binding.state):
                    return
                del self.overlay[binding.vif]
        self.compiler.inputs.set_binding(binding)

    def _note_arrival(self, binding: Binding) -> None:
        """The toolstack's word, by the database, makes a binding here active: the guest may not have announced itself."""
        known = self.compiler.view.binding(binding.network, binding.vif, self.me)
        if binding.state is BindingState.ACTIVE and known is not None and known.state.moving:
            self._on_arrival(binding.vif)


def _columns(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
