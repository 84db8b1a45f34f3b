"""The agent's window on the pool database: rows folded into the compiler, and conditions that keep it small.

One rule: the replica holds what this host needs and no more: its own rows, the VIFs it has ports for or is to have, their
networks, who else is on those, and the security groups they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

from ovsctl.ovsdb import Change, Monitor, Replica, Row, Uuid, by_uuid
from ovsctl.ovsdb import Where as RowWhere
from vnet.compile import Compiler
from vnet.db.rows import from_row, host_from_rows, uplink_from_row
from vnet.db.writes import by_key
from vnet.objects import Binding, Host, InvalidValue, Network, Owner, Pool, SecurityGroup, Uplink, Vif

# What peers must know of a binding. Left out is what is only said to the controller: were it here, each acknowledgement of
# one host would be sent to all others. Table Agent is not monitored at all: the server would look through the conditions of
# every agent at every heartbeat of any.
BINDING_COLUMNS = (
    "vif",
    "host",
    "network",
    "mac",
    "epoch",
    "state",
    "addresses",
    "unlocked",
    "groups",
    "moved",
    "ofport",
)
SAID_ELSEWHERE = {"ready": False, "acked": frozenset(), "since": 0}

Where = tuple[tuple[str, str, Any], ...] | bool


def monitors(me: str, ports: Iterable[str]) -> dict[str, Monitor]:
    """What to replicate before anything is known but the host's name and the VIFs of its ports."""
    return {
        "Pool": Monitor(columns=("name", "underlay_mtu", "locking_mode", "generation")),
        "Host": Monitor(columns=("name", "address", "owner")),
        "Uplink": Monitor(where=(("host", "==", me),)),
        "Vif": Monitor(where=vif_condition(me, ports)),
        "Network": Monitor(where=False),
        "SecurityGroup": Monitor(where=False),
        "Binding": Monitor(columns=BINDING_COLUMNS, where=(("host", "==", me),)),
    }


def vif_condition(me: str, ports: Iterable[str]) -> Where:
    """The VIFs a host needs: those wanted here, those coming here, those whose port is here."""
    return (("host", "==", me), ("incoming", "==", me), *(("id", "==", vif) for vif in sorted(ports)))


def network_conditions(me: str, networks: Iterable[str]) -> tuple[Where, Where]:
    """The conditions on Network and Binding for the networks a host needs."""
    ordered = sorted(networks)
    named = tuple(("name", "==", name) for name in ordered)
    bound = tuple(("network", "==", name) for name in ordered)
    return named or False, (("host", "==", me), *bound)


def group_condition(groups: Iterable[str]) -> Where:
    """The security groups a host needs. Of those that their rules name it needs no rows: bindings say who is in them."""
    return tuple(("name", "==", name) for name in sorted(groups)) or False


def next_asked(asked: Set[str], needed: Set[str], useful: Set[str], *, trim: bool) -> Set[str]:
    """What to name in a condition: all that is needed, at once. What is of no use any more goes along with that, or to `trim`.

    For every change of a condition ovsdb-server looks at the whole table: 0.13 s for 100,000 rows.
    """
    if needed <= asked and not (trim and asked - useful):
        return asked
    return needed | (asked & useful)


class PoolFold:
    """Folds replica changes into a compiler, and knows what else the pool says about this host.

    on_binding: called with the binding before and after, whenever one of a network known here changes.
    overlay: bindings of this host that it has decided on and the database does not say yet; they win over its rows.
    """

    def __init__(self, me: str, compiler: Compiler) -> None:
        self.me = me
        self.compiler = compiler
        self.generation = 0
        self.rows_read = 0  # for tests to count
        self.overlay: dict[str, Binding] = {}
        self.bad_rows: dict[str, str] = {}
        self.mine: dict[str, Binding] = {}  # this host's bindings as the database has them, by VIF id
        self.asked: Set[str] = frozenset()  # the VIFs that the monitor's condition names
        self.asked_networks: Set[str] = (
            frozenset()
        )  # those whose row and bindings it names, and the pool has answered for
        self.asked_groups: Set[str] = frozenset()  # likewise
        self.waiting: dict[str, Vif] = {}  # VIFs as they are once the security groups they have joined are known
        self.doubtful: set[str] = (
            set()
        )  # VIFs with a port or binding here whose row went: deleted, or only wanted elsewhere
        self._rows: dict[tuple[str, ...], Uuid] = {}  # (VIF) and (VIF, host) to the UUID of its row
        self._uplinks: dict[str, Uplink] = {}
        self._folds: dict[str, Callable[[Row | None, Row | None], None]] = {
            "Pool": self._pool,
            "Host": self._host,
            "Uplink": self._uplink,
            "Network": self._network,
            "SecurityGroup": self._group,
            "Vif": self._vif,
            "Binding": self._binding,
        }

    def start(self, replica: Replica) -> None:
        """Takes everything a replica holds."""
        for table in self._folds:
            self.fold(Change(table, uuid, None, row) for uuid, row in replica[table].items())

    def fold(self, batch: Iterable[Change]) -> None:
        """Takes one transaction's changes. A row that no pool may hold is kept out, and remembered in `bad_rows`."""
        for change in sorted(batch, key=lambda change: change.new is not None):
            self.rows_read += 1
            try:
                self._folds[change.table](change.old, change.new)
                self.bad_rows.pop(change.uuid, None)
            except InvalidValue as error:
                self.bad_rows[str(change.uuid)] = f"{change.table}: {error}"

    def must_ask(self, vif: str) -> bool:
        """Whether a VIF's row comes only if the condition names it: it comes by itself if it is wanted here or on its way."""
        known = self.compiler.view.vifs.get(vif)
        return known is None or vif in self.doubtful or self.me not in (known.host, known.incoming)

    def settle_doubts(self) -> set[str]:
        """VIFs whose rows did not come though the condition names them by now, so they are deleted; and those that left."""
        gone = {vif for vif in self.doubtful if vif in self.asked or not self._is_here(vif)}
        self.doubtful -= gone
        for vif in gone:
            self.compiler.drop_vif(vif)
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
            self.compiler.set_vif(vif)
        return set(ready)

    def _must_wait(self, vif: Vif) -> bool:
        """Whether a VIF that runs here has joined a group whose rules have not come yet: meanwhile it stays as it was."""
        view = self.compiler.view
        known = view.vifs.get(vif.id)
        if known is None or known.network != vif.network:
            return False
        return not self.asked_groups >= set(vif.groups) - view.groups.keys()

    def locate(self, value: Vif | Binding) -> RowWhere:
        """The row of a VIF or a binding: by its UUID where it is known, which costs the server nothing, else by its key."""
        key = (value.id,) if isinstance(value, Vif) else (value.vif, value.host)
        uuid = self._rows.get(key)
        return by_uuid(uuid) if uuid is not None else by_key(value)

    def set_overlay(self, binding: Binding) -> None:
        """This host has decided on its binding of a VIF: it holds here, whatever the database says so far."""
        self.overlay[binding.vif] = binding
        self.compiler.set_binding(binding)

    def clear_overlay(self, vif: str) -> None:
        """The database knows better: its row, or none, holds again."""
        decided = self.overlay.pop(vif, None)
        if decided is not None:
            actual = self.mine.get(vif)
            if actual is not None:
                self.compiler.set_binding(actual)
            else:
                self.compiler.drop_binding(decided.network, vif, self.me)

    def _pool(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            self.compiler.set_pool(None)
            return
        values: Mapping[str, Any] = {
            **_columns(new, "name", "underlay_mtu", "locking_mode", "generation"),
            "revision": 0,
        }
        pool = from_row(Pool, values)
        self.generation = pool.generation
        self.compiler.set_pool(pool)

    def _host(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self.compiler.drop_host(old["name"])
            return
        uplinks = tuple(self._uplinks.values()) if new["name"] == self.me else ()
        self.compiler.set_host(host_from_rows(new, uplinks))

    def _uplink(self, old: Row | None, new: Row | None) -> None:
        if old is not None and (new is None or new["name"] != old["name"]):
            self._uplinks.pop(old["name"], None)
        if new is not None:
            self._uplinks[new["name"]] = uplink_from_row(new)
        known = self.compiler.view.hosts.get(self.me)
        if known is not None:
            ordered = tuple(sorted(self._uplinks.values(), key=lambda uplink: uplink.name))
            self.compiler.set_host(Host(known.name, known.address, ordered, Owner(known.owner)))

    def _network(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self.compiler.drop_network(old["name"])
        else:
            self.compiler.set_network(from_row(Network, new))

    def _group(self, old: Row | None, new: Row | None) -> None:
        if new is None:
            if old is not None:
                self.compiler.drop_group(old["name"])
        else:
            self.compiler.set_group(from_row(SecurityGroup, new))

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
                self.compiler.set_vif(vif)

    def _vif_gone(self, vif: str) -> None:
        """A row that is no longer sent was deleted if the condition names it; else it may only be wanted elsewhere by now."""
        self.waiting.pop(vif, None)
        if vif not in self.asked and self._is_here(vif):
            self.doubtful.add(vif)
            known = self.compiler.view.vifs.get(vif)
            if known is not None and known.awaited:  # not here, or its row would have come
                self.compiler.set_vif(replace(known, awaited=False))
        else:
            self.compiler.drop_vif(vif)

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
            self.compiler.drop_binding(network, vif, host)
            return
        if old is not None and old["network"] != new["network"]:
            self.compiler.drop_binding(old["network"], old["vif"], old["host"])
        self._rows[new["vif"], new["host"]] = new.uuid
        binding = from_row(Binding, {**_columns(new, *BINDING_COLUMNS), **SAID_ELSEWHERE})
        if binding.host == self.me:
            self.mine[binding.vif] = binding
            decided = self.overlay.get(binding.vif)
            if decided is not None:
                if (decided.epoch, decided.state) != (binding.epoch, binding.state):
                    return
                del self.overlay[binding.vif]
        self.compiler.set_binding(binding)


def _columns(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
