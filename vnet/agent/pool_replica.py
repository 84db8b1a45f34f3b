"""The agent's replica of the pool: rows folded into the compiler, and the VIFs that changed since the last turn.

One rule: the replica holds what this host needs and no more: its own rows, the VIFs it has ports for or is to have, their
networks, the bindings on those, and the security groups they are in (conditions.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final

from ovsctl.ovsdb import Change, Replica, Row, Uuid, Where, by_uuid
from vnet.compile import Compiler
from vnet.db.rows import TABLE_OF, by_key, from_row
from vnet.db.tables import TABLES as DECLARED_TABLES
from vnet.grammar.declare import Declared, attrs_of
from vnet.objects import (
    AddressSet,
    Binding,
    BindingState,
    FlowCollector,
    FrameMirror,
    Host,
    InvalidValue,
    Network,
    PlugBridge,
    Pool,
    QosClass,
    SecurityGroup,
    TunnelKey,
    Uplink,
    Vif,
)
from vnet.objects.binding import NOWHERE, Asked, asked_for

log = logging.getLogger(__name__)

# The columns of a binding that peers need. The others are for the controller: were they monitored, each acknowledgement of
# one host would be sent to all others. Table Agent is not monitored at all: the server would look through the conditions of
# every agent at every heartbeat of any.
UNMONITORED = {"ready": False, "acked": frozenset(), "since": 0, "connections": ""}
BINDING_COLUMNS = tuple(name for name in attrs_of(Binding) if name not in UNMONITORED)
TABLES = (
    "Pool",
    "Host",
    "TunnelKey",
    "Uplink",
    "QosClass",
    "AddressSet",
    "PlugBridge",
    "FlowCollector",
    "Mirror",
    "Network",
    "SecurityGroup",
    "Vif",
    "Binding",
)
# The columns of the pool's row that decide something here. Its revision rises with each write of anybody.
POOL_COLUMNS = ("name", "underlay_mtu", "locking_mode", "id", "generation", "key_epoch")
MAX_LISTED = 100  # rows that cannot be read, in the agent's problems: they are written to the database again

_KEYS: dict[str, Callable[[Row], Any]] = {
    name: itemgetter(*DECLARED_TABLES[name].key) if DECLARED_TABLES[name].key else lambda _: "" for name in TABLES
}


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that no pool may have. held: what was taken in of it last, which holds meanwhile; None if nothing ever was."""

    table: str
    problem: str
    row: Row
    held: Row | None


@dataclass(frozen=True, slots=True)
class ConditionNames:
    """The objects that the monitor's conditions name, and that the pool has answered for."""

    vifs: Set[str] = frozenset()
    networks: Set[str] = frozenset()  # their rows and their bindings
    groups: Set[str] = frozenset()


class PoolReplica:
    """Folds changes of rows into a compiler.

    kept: the row of a table and a UUID as this host had it before the agent started; it is asked for what cannot be read at first sight.
    on_arrival: called with a VIF whose binding here somebody else has made active. awaits_port: whether the port by which a network's frames leave
    this host is still to come. overlay: bindings of this host that were decided on and are not in the database yet; they win over its rows.
    """

    def __init__(
        self,
        compiler: Compiler,
        on_arrival: Callable[[str], None],
        kept: Callable[[str, Uuid], Row | None] = lambda table, uuid: None,
        awaits_port: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.compiler: Final = compiler
        self._kept: Final = kept
        self._awaits_port: Final = awaits_port
        self._on_arrival: Final = on_arrival
        self.touched: set[tuple[str, str]] = set()  # (network, VIF) of all that changed since the last turn
        self.overlay: Final[dict[str, Binding]] = {}
        self.mine: Final[dict[str, Binding]] = {}  # this host's bindings as the database has them, by VIF id
        self.tunnel_keys: Final[dict[tuple[str, int], TunnelKey]] = {}  # by host and plane
        self.unreadable: Final[dict[Uuid, UnreadableRow]] = {}
        self.named = ConditionNames()
        self.waiting: Final[
            dict[str, Vif]
        ] = {}  # VIFs as they are once their new network, with its way out of this host, or groups they have joined, are known
        self.doubtful: Final[set[str]] = set()  # VIFs here whose row went: deleted, or wanted elsewhere only
        self.needs_changed = True  # a row came by which this host may need other rows
        self.rows_read = 0  # for tests to count
        self._counts: Final[Counter[str]] = Counter()
        self._rows: Final[dict[tuple[str, Any], Uuid]] = {}  # table and key to the UUID of the row that holds there
        self._uplinks: Final[dict[str, tuple[Uuid, Uplink]]] = {}
        self._unusable: Final[dict[Uuid, str]] = {}  # the problems of uplinks that do not go with the host's others

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
        """Takes one transaction's changes. Of a row that cannot be read what was taken in last goes on to hold, by this agent or the one before."""
        ordered = sorted(batch, key=lambda change: change.new is not None)
        for change in ordered:
            self.rows_read += 1
            before = self.unreadable.pop(change.uuid, None)
            held = change.old if before is None else before.held
            try:
                self._fold(change.table, change.uuid, held, change.new)
            except InvalidValue as error:
                self._refuse(change, held, str(error))
            except Exception as error:  # rows come from outside: a fault that nobody foresaw costs its row alone
                log.exception("row %s of table %s", change.uuid, change.table)
                self._refuse(change, held, f"{type(error).__name__}: {error}")
            for row in (held, change.old, change.new):
                if row is not None:
                    self.touched.update(self._concerned(change.table, row))
                    self.needs_changed |= change.table != "Binding" or row["host"] == self.me

    def fold_asked(self, batch: Iterable[Change]) -> bool:
        """Takes changes of where VIFs are asked for. Whether other bindings may count now."""
        rows = [change for change in batch if change.table == "Vif"]
        known = {change.new["id"]: _asked(change.new) for change in rows if change.new is not None}
        gone = {change.old["id"] for change in rows if change.old is not None} - known.keys()
        touched = [(network, vif) for vif in gone for network in self.compiler.inputs.set_asked(vif, NOWHERE)]
        touched += [
            (network, vif) for vif, asked in known.items() for network in self.compiler.inputs.set_asked(vif, asked)
        ]
        self.touched.update(touched)
        return bool(touched)

    def start_asked(self, replica: Replica) -> None:
        """Takes where VIFs are asked for, all that a replica holds and no more."""
        known = {row["id"] for row in replica["Vif"].values()}
        gone = [vif for vif in self.compiler.inputs.asked if vif not in known]
        self.touched.update((network, vif) for vif in gone for network in self.compiler.inputs.set_asked(vif, NOWHERE))
        self.fold_asked(Change("Vif", uuid, None, row) for uuid, row in replica["Vif"].items())

    def _kept_row(self, change: Change) -> Row | None:
        """The row as it was before the agent started, taken in, of one that cannot be read and is new to the agent; None if there is none, or another row
        has its name by now. This host's own bindings are claimed anew instead."""
        row = self._kept(change.table, change.uuid)
        if row is None or (change.table, _KEYS[change.table](row)) in self._rows:
            return None
        if change.table == "Binding" and row["host"] == self.me:
            return None
        try:
            self._fold(change.table, change.uuid, None, row)
        except InvalidValue:
            return None
        self.touched.update(self._concerned(change.table, row))
        return row

    def _refuse(self, change: Change, held: Row | None, problem: str) -> None:
        if change.new is None:
            return
        if held is None:
            held = self._kept_row(change)
        self._counts["refused"] += 1
        problem = f"{change.table}: {problem}"
        self.unreadable[change.uuid] = UnreadableRow(change.table, problem, change.new, held)
        kept = "it stays as it was" if held is not None else "it is left out"
        log.warning("row %s of table %s: %s", change.uuid, problem, kept)

    @property
    def rows_refused(self) -> int:
        """How often a row came that cannot be read."""
        return self._counts["refused"]

    @property
    def problems(self) -> dict[str, str]:
        """The problems of rows, by UUID; of many the first, and how many there are besides."""
        found = {str(uuid): row.problem for uuid, row in self.unreadable.items()} | self._unusable
        if len(found) <= MAX_LISTED:
            return found
        return dict(list(found.items())[:MAX_LISTED]) | {"others": f"{len(found) - MAX_LISTED} more rows of the pool"}

    def held_rows(self) -> Iterator[tuple[str, Uuid, Row]]:
        """Table, UUID and content of the rows that hold instead of those that cannot be read."""
        return ((row.table, uuid, row.held) for uuid, row in self.unreadable.items() if row.held is not None)

    def _fold(self, table: str, uuid: Uuid, old: Row | None, new: Row | None) -> None:
        """Takes a row in. It is read before anything changes; a key is given up only by the row that holds it."""
        value = self._read(table, new) if new is not None else None
        key = (table, _KEYS[table](new)) if new is not None else None
        if old is not None and (before := (table, _KEYS[table](old))) != key and self._rows.get(before) == uuid:
            del self._rows[before]
            self._drop(table, old)
            old = None
        if value is not None and key is not None:
            self._rows[key] = uuid
            self._put(value, uuid, old)

    def _read(self, table: str, row: Row) -> Declared:
        """The object of a row. Raises InvalidValue."""
        match table:
            case "Pool":
                return from_row(Pool, {**_columns(row, *POOL_COLUMNS), "revision": 0, "encryption": None, "keyed": 0})
            case "Binding":
                return from_row(Binding, {**_columns(row, *BINDING_COLUMNS), **UNMONITORED})
            case _:
                return from_row(DECLARED_TABLES[table].declared, row)

    def _put(self, value: Declared, uuid: Uuid, old: Row | None) -> None:
        """Takes an object in. old: its row before, None for one that is new under its key."""
        match value:
            case Pool():
                self.compiler.inputs.set_pool(value)
            case Host():
                self._set_host(value)
            case TunnelKey():
                self.tunnel_keys[value.host, value.plane] = value
            case Uplink():
                self._uplinks[value.name] = (uuid, value)
                self._uplinks_changed()
            case AddressSet():
                self.compiler.inputs.set_address_set(value)
            case PlugBridge():
                self.compiler.inputs.set_plug_bridge(value)
            case FlowCollector():
                self.compiler.inputs.set_flow_collector(value)
            case FrameMirror():
                self.compiler.inputs.set_mirror(value)
            case QosClass():
                self.compiler.inputs.set_qos(value)
            case Network():
                self.compiler.inputs.set_network(value)
            case SecurityGroup():
                self.compiler.inputs.set_group(value)
            case Vif():
                self._vif(value)
            case Binding():
                self._binding(value, old)

    def _drop(self, table: str, old: Row) -> None:
        match table:
            case "Pool":
                self.compiler.inputs.set_pool(None)
            case "Host":
                self.compiler.inputs.drop_host(old["name"])
            case "TunnelKey":
                self.tunnel_keys.pop((old["host"], old["plane"]), None)
            case "Uplink":
                self._uplinks.pop(old["name"], None)
                self._uplinks_changed()
            case "AddressSet":
                self.compiler.inputs.drop_address_set(old["name"])
            case "PlugBridge":
                self.compiler.inputs.drop_plug_bridge(old["name"])
            case "FlowCollector":
                self.compiler.inputs.drop_flow_collector(old["name"])
            case "Mirror":
                self.compiler.inputs.drop_mirror(old["name"])
            case "QosClass":
                self.compiler.inputs.drop_qos(old["name"])
            case "Network":
                self.compiler.inputs.drop_network(old["name"])
            case "SecurityGroup":
                self.compiler.inputs.drop_group(old["name"])
            case "Vif":
                self._vif_gone(old["id"])
            case "Binding":
                self._binding_gone(old)

    def _concerned(self, table: str, row: Row) -> Iterator[tuple[str, str]]:
        """(network, VIF) of the VIFs whose bindings a changed row concerns."""
        view = self.compiler.view
        if table == "Binding":
            yield row["network"], row["vif"]
        elif table == "Vif":
            yield row["network"], row["id"]
        elif table == "Network":
            yield from ((row["name"], vif.id) for vif in view.local(row["name"]))
        elif table == "AddressSet":
            named = {name for name, group in view.groups.items() if row["name"] in group.address_sets}
            yield from ((vif.network, vif.id) for vif in view.vifs.values() if not named.isdisjoint(view.obeyed(vif)))
        elif table == "SecurityGroup":
            yield from ((vif.network, vif.id) for vif in view.vifs.values() if row["tier"] or row["name"] in vif.groups)

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
        self.doubtful.difference_update(gone)
        for vif in gone:
            self.compiler.inputs.drop_vif(vif)
        return gone

    def mirror_targets(self) -> set[str]:
        """The VIFs that mirrors send to: hosts need their rows, wherever they run."""
        return {it.target for it in self.compiler.inputs.mirrors.values() if it.target is not None}

    def wanted_networks(self) -> set[str]:
        """The networks of the VIFs that are, are to be, or were here."""
        vifs = (*self.compiler.view.vifs.values(), *self.waiting.values())
        return {vif.network for vif in vifs} | {b.network for b in self.mine.values()}

    def wanted_groups(self) -> set[str]:
        """The security groups of the VIFs that are, or are to be, here."""
        vifs = (*self.compiler.view.vifs.values(), *self.waiting.values())
        return {group for vif in vifs for group in vif.groups}

    def settle_waiting(self) -> set[str]:
        """VIFs whose new network, with its way out, and groups have come by now, or do not exist."""
        ready = {vif.id: vif for vif in self.waiting.values() if not self._must_wait(vif)}
        for vif in ready.values():
            del self.waiting[vif.id]
            self.compiler.inputs.set_vif(vif)
        return set(ready)

    def _must_wait(self, vif: Vif) -> bool:
        """Whether a VIF that runs here is on another network, or in another group, whose rows have not come yet, or whose tunnel or patch this
        host does not have yet: meanwhile it stays as it was, so that one bundle takes it from the one to the other and no frame is lost."""
        view = self.compiler.view
        if vif.id not in view.vifs:
            return False
        groups, networks = set(vif.groups) - view.groups.keys(), {vif.network} - view.networks.keys()
        known = self.named.groups >= groups and self.named.networks >= networks
        return not known or self._awaits_port(vif.network)

    def locate(self, value: Vif | Binding) -> Where:
        """The row of a VIF or a binding: by its UUID where it is known, which costs the server nothing, else by its key."""
        key = value.id if isinstance(value, Vif) else (value.vif, value.host)
        uuid = self._rows.get((TABLE_OF[type(value)], key))
        return by_uuid(uuid) if uuid is not None else by_key(value)

    def spoiled(self, vif: str) -> Uuid | None:
        """The row of this host's binding of a VIF, if it cannot be read and is named as such: what names a row no host may write."""
        for uuid, found in self.unreadable.items():
            if found.table == "Binding" and (found.row["vif"], found.row["host"]) == (vif, self.me):
                return uuid
        return None

    def set_overlay(self, binding: Binding) -> None:
        """This host has decided on its binding of a VIF: it holds here, whatever the database says so far."""
        before = self.overlay.get(binding.vif)
        if before is not None and before.network != binding.network:
            self.compiler.inputs.drop_binding(before.network, binding.vif, self.me)
        self.overlay[binding.vif] = binding
        self.compiler.inputs.set_binding(binding)

    def clear_overlay(self, vif: str) -> None:
        """The database knows better: its row, or none, holds again."""
        decided = self.overlay.pop(vif, None)
        if decided is not None:
            actual = self.mine.get(vif)
            if actual is None or actual.network != decided.network:
                self.compiler.inputs.drop_binding(decided.network, vif, self.me)
            if actual is not None:
                self.compiler.inputs.set_binding(actual)

    def _set_host(self, host: Host) -> None:
        """Takes a host in. This one has its uplinks: of those that do not go together the first by name."""
        if host.name == self.me:
            self._unusable.clear()
            for uuid, uplink in (self._uplinks[name] for name in sorted(self._uplinks)):
                try:
                    host = replace(host, uplinks=(*host.uplinks, uplink))
                except InvalidValue as error:
                    self._unusable[uuid] = f"Uplink: {error}"
        self.compiler.inputs.set_host(host)

    def _uplinks_changed(self) -> None:
        known = self.compiler.view.hosts.get(self.me)
        if known is not None:
            self._set_host(replace(known, uplinks=()))

    def _vif(self, vif: Vif) -> None:
        self.doubtful.discard(vif.id)
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
            if known is not None:  # neither awaited here nor on its way here, or its row would have come
                incoming = known.incoming if known.incoming != self.me else None
                self.compiler.inputs.set_vif(replace(known, awaited=False, incoming=incoming))
        else:
            self.compiler.inputs.drop_vif(vif)

    def _is_here(self, vif: str) -> bool:
        return vif in self.compiler.view.ports or vif in self.mine

    def _binding(self, binding: Binding, old: Row | None) -> None:
        if old is not None and old["network"] != binding.network:
            self.compiler.inputs.drop_binding(old["network"], binding.vif, binding.host)
        if binding.host == self.me:
            self.mine[binding.vif] = binding
            self._note_arrival(binding)
            decided = self.overlay.get(binding.vif)
            if decided is not None:
                if _decided(decided) != _decided(binding):
                    return
                del self.overlay[binding.vif]
        self.compiler.inputs.set_binding(binding)

    def _binding_gone(self, old: Row) -> None:
        vif, host = old["vif"], old["host"]
        if host == self.me:
            self.mine.pop(vif, None)
            if vif in self.overlay:
                return
        self.compiler.inputs.drop_binding(old["network"], vif, host)

    def _note_arrival(self, binding: Binding) -> None:
        """The toolstack's word, by the database, makes a binding here active: the guest may not have announced itself."""
        known = self.compiler.view.binding(binding.network, binding.vif, self.me)
        if binding.state is BindingState.ACTIVE and known is not None and known.state.moving:
            self._on_arrival(binding.vif)


def _decided(b: Binding) -> tuple[object, ...]:
    """What of a binding its host decides."""
    return b.network, b.epoch, b.state, b.link_locals, b.behind, b.listening


def _asked(row: Row) -> Asked:
    return asked_for(row["host"], row["incoming"], row["stays"])


def _columns(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
