"""Objects as an input states them, to objects as the pool holds them. One rule: what is left out is kept, or else allocated.

A document and a call of the REST API resolve alike: a document states every object that it owns, a call one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from vnet.grammar.declare import Declared, SetBy, Stated, attrs_of, cache, unchecked
from vnet.objects.allocate import Exhausted, Ids, in_order
from vnet.objects.carriers import NetworkType, Way
from vnet.objects.enums import Encryption, Owner, TagType
from vnet.objects.index import VifIndex
from vnet.objects.labels import NETWORK
from vnet.objects.mirror import FrameMirror
from vnet.objects.mtu import default_mtu, mtu_capacity
from vnet.objects.network import Network
from vnet.objects.pool import Pool
from vnet.objects.proposal import Fault, Proposal
from vnet.objects.rules import range_of
from vnet.objects.security import SecurityGroup
from vnet.objects.state import CONFIGURED, PoolState
from vnet.objects.tiers import Tier
from vnet.objects.vif import Vif
from vnet.objects.vm import Vm
from vnet.objects.words import address_number, ip_version

D = TypeVar("D", bound=Declared)
Inputs = Mapping[type[Declared], Mapping[str, Stated]]


class Resolver:
    """One step from a pool to the next. `faults`: objects for which nothing is left to allocate.

    partial: the input states changes of objects that are there: a field that it leaves out stays as it is.
    """

    def __init__(
        self, before: PoolState, pool: Pool | None, index: VifIndex, actor: Owner, *, partial: bool = False
    ) -> None:
        self.before = before
        self.pool = pool
        self.index = index
        self.actor = actor
        self.partial = partial
        self.faults: list[Fault] = []
        self._ids: Ids | None = None

    @property
    def ids(self) -> Ids:
        if self._ids is None:
            self._ids = Ids(self.pool.name if self.pool is not None else "", self.before, self.index)
        return self._ids

    def resolve(self, inputs: Inputs, *, complete: bool = False) -> dict[str, dict[str, Any]]:
        """The changes that the inputs come to, as a Proposal takes them.

        complete: the inputs are all objects of the actor: those that are not among them go.
        """
        changes: dict[str, dict[str, Any]] = {}
        for declared in CONFIGURED:
            stated = inputs.get(declared, {})
            before = getattr(self.before, declared.NOUN.state)
            changed = {
                name: value
                for name, fields in self._values(declared, stated, changes).items()
                if (value := _kept(before.get(name), declared, fields)) is not before.get(name)
            }
            if complete:
                changed |= {n: None for n, old in before.items() if n not in stated and old.owner is self.actor}
            if changed:
                changes[declared.NOUN.state] = changed
        pass_on(self._after(changes), changes)
        return changes

    def _values(
        self, declared: type[Declared], stated: Mapping[str, Stated], changes: dict[str, dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        if declared is Network:
            return self._networks(stated, changes)
        if declared is Vif:
            return self._vifs(stated, changes)
        values = {name: self._settled(declared, name, found) for name, found in stated.items()}
        if declared is FrameMirror:
            for name in in_order(values):
                before = self.before.mirrors.get(name)
                values[name]["key"] = (
                    before.key if before is not None else self._allocated("mirror", name, self.ids.mirror_key)
                )
        if declared is SecurityGroup:
            self._group_numbers(values)
            after = self._after(changes)
            sets = after.after.address_sets
            for name, fields in values.items():
                self._no_default(name, fields, stated[name])
                named = {name for rule in fields["rules"] for name in rule.groups}
                fields["address_sets"] = frozenset(name for name in named if name in sets)
                fields["network_ranges"] = _network_ranges(after, named)
        return values

    def _settled(self, declared: type[Declared], name: str, stated: Stated) -> dict[str, Any]:
        """The fields of an object as far as they need no allocation: stated, else kept, else the default."""
        before = getattr(self.before, declared.NOUN.state).get(name)
        fields = attrs_of(declared)
        values = dict(_defaults(declared))
        if before is not None and (kept := _kept_fields(declared, self.actor, self.partial)):
            values.update(zip(kept, _of(kept)(before), strict=True))
        values.update(stated.values)
        for extra in stated.values.keys() - fields.keys():  # objects inside this one
            del values[extra]
        values[declared.NOUN.key] = name
        if "owner" in fields:
            values["owner"] = self.actor
        return values

    # --- networks and groups -----------------------------------------------------------------------

    def _after(self, changes: Mapping[str, Mapping[str, Any]]) -> Proposal:
        """The pool with the changes so far, to look up hosts and subnets in."""
        return Proposal(self.before, changes, self.index, self.actor)

    def _networks(self, stated: Mapping[str, Stated], changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        after = self._after(changes)
        underlay_mtu = self.pool.underlay_mtu if self.pool is not None else after.underlay_mtu
        values = {name: self._settled(Network, name, found) for name, found in stated.items()}
        for fields in values.values():
            self.ids.take_key(fields["type"], fields.get("key"))
        for name in in_order(values):
            fields, before = values[name], self.before.networks.get(name)
            if "number" not in fields:
                fields["number"] = (
                    before.number if before is not None else self._allocated("network", name, self.ids.number)
                )
            if "key" not in fields:
                same = before is not None and before.type is fields["type"]
                fields["key"] = before.key if before is not None and same else self._key(name, fields)
            if "encryption" not in fields:
                kept = before if self.partial and not stated[name].names("encryption") else None
                fields["encryption"] = self._encryption(fields["type"], kept)
            same = before is not None and before.type is fields["type"] and before.encryption is fields["encryption"]
            if "mtu" not in fields and before is not None and self.partial and same:
                fields["mtu"] = before.mtu
            elif "mtu" not in fields:
                mtus = after.mtus_of(fields["type"], fields["uplink"], fields["hosts"])
                encrypted = fields["encryption"] is not None
                service = fields.get("tpid") is TagType.SERVICE
                capacity = mtu_capacity(
                    fields["type"], underlay_mtu, after.vtep, mtus, encrypted=encrypted, service=service
                )
                fields["mtu"] = default_mtu(fields["type"], capacity)
        return {name: values[name] for name in stated}

    def _encryption(self, network_type: NetworkType, kept: Network | None) -> Encryption | None:
        """Of a network that does not say: as it is, if it is `kept` so, else the pool's."""
        if network_type.carrier.way is not Way.TUNNEL:
            return None
        if kept is not None:
            return kept.encryption
        pool = self.pool if self.pool is not None else self.before.pool
        return pool.encryption if pool is not None else None

    def _key(self, name: str, fields: Mapping[str, Any]) -> int | None:
        key: int | None = self._allocated("network", name, lambda: self.ids.key(fields["type"]))
        return key

    def _no_default(self, name: str, fields: Mapping[str, Any], stated: Stated) -> None:
        """Refuses the default of a group that has none, also where it says what one would be that is left out."""
        for field in ("ingress", "egress") if fields["tier"] is not Tier.VIF else ():
            if field in stated.values and fields[field] is attrs_of(SecurityGroup)[field].default:
                message, hint = (
                    f"a group of tier {fields['tier'].value} has no default",
                    "write a rule that is not mandatory",
                )
                self.faults.append(Fault("tier", "security-group", name, field, message, hint))

    def _group_numbers(self, values: dict[str, dict[str, Any]]) -> None:
        for name in in_order(values):
            if "number" not in values[name]:
                before = self.before.groups.get(name)
                number = before.number if before is not None else None
                values[name]["number"] = number or self._allocated("security-group", name, self.ids.group_number)

    def _allocated(self, noun: str, name: str, allocate: Any) -> Any:
        try:
            return allocate()
        except Exhausted as error:
            self.faults.append(Fault("exhausted", noun, name, "", str(error)))
            return 1

    # --- VIFs --------------------------------------------------------------------------------------

    def _vifs(self, stated: Mapping[str, Stated], changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        after = self._after(changes)
        values = {name: self._settled(Vif, name, found) for name, found in stated.items()}
        first_subnet = _first_subnets(after)
        default_mode = self.pool.locking_mode if self.pool is not None else attrs_of(Vif)["locking_mode"].default
        for name, fields in values.items():
            if "mac" in fields:
                self.ids.take_mac(fields["mac"])
            if "addresses" in fields:
                self.ids.take_addresses(fields["network"], fields["addresses"])
            before = self.before.vifs.get(name)
            if before is not None and before.network != fields["network"]:
                fields |= {"former_network": None, "former_addresses": ()}
            elif before is not None and self.partial:
                # Of no subnet as well: a locked VIF that lost them would be held to none.
                fields.setdefault("addresses", before.addresses)
            keep_mode = before is not None and self.partial
            fields.setdefault("locking_mode", before.locking_mode if before is not None and keep_mode else default_mode)
            vm = after.after.vms.get(fields["vm"] or "")
            fields["vm_labels"], fields["vm_groups"] = (vm.labels, vm.groups) if vm is not None else ((), ())
            if "index" not in fields:
                fields["index"] = before.index if before is not None else self._index(fields["vm"])
        lacking: list[tuple[str, list[str]]] = []
        for name in in_order(
            [name for name, fields in values.items() if "mac" not in fields or "addresses" not in fields]
        ):
            fields, before = values[name], self.before.vifs.get(name)
            if "mac" not in fields:
                keeps = before is not None and not self._mac_clashes(before, fields["network"], values)
                fields["mac"] = before.mac if before is not None and keeps else self.ids.mac(name)
            if "addresses" not in fields:
                same = before is not None and before.network == fields["network"]
                had = before.addresses if before is not None and same else ()
                ranges = after.ranges.get(fields["network"], [])
                keep = [address for address in had if _usable(ranges, address)]
                lacking.append((name, keep))
        for name, keep in lacking:
            fields = values[name]
            have = {ip_version(address) for address in keep}
            new = [
                address
                for version in (4, 6)
                if version not in have and (subnet := first_subnet.get((fields["network"], version))) is not None
                for address in self._address(name, subnet)
            ]
            fields["addresses"] = tuple(sorted([*keep, *new]))
        return values

    def _mac_clashes(self, before: Vif, network: str, values: Mapping[str, Any]) -> bool:
        """Whether another VIF of the network that the VIF moves to has its MAC."""
        if before.network == network:
            return False
        others = self.index.by_mac.get(before.mac, {})
        return any(id != before.id and self.before.vifs[id].network == network for id in others)

    def _index(self, vm: str | None) -> int:
        """The first place among the VM's VIFs that is free."""
        taken = {self.before.vifs[id].index for id in self.index.by_reference.get(("vm", vm or ""), ())}
        return next(index for index in range(len(taken) + 1) if index not in taken)

    def _address(self, name: str, subnet: Any) -> list[str]:
        try:
            return [self.ids.address(subnet)]
        except Exhausted:
            message = f"subnet {subnet.name} ({subnet.cidr}) has no free address for VIF {name}"
            hint = "a larger subnet; or 'addresses: []' for a VIF without one"
            self.faults.append(Fault("exhausted", "vif", name, "", message, hint))
            return []


def pass_on(after: Proposal, changes: dict[str, dict[str, Any]]) -> None:
    """Adds the objects that repeat something of others which change: VIFs the labels of their VMs, groups the ranges of networks."""
    for name, vm in after.changed("vms").items():
        for vif in after.unchanged_vifs_naming("vm", name):
            if (vif.vm_labels, vif.vm_groups) != (vm.labels, vm.groups):
                changes.setdefault("vifs", {})[vif.id] = replace(vif, vm_labels=vm.labels, vm_groups=vm.groups)
    for name, group in after.before.groups.items() if "subnets" in after.changes else ():
        if name not in after.changes.get("groups", {}) and group.networks():
            ranges = _network_ranges(after, group.named())
            if ranges != group.network_ranges:
                changes.setdefault("groups", {})[name] = replace(group, network_ranges=ranges)


def _network_ranges(after: Proposal, named: Collection[str]) -> tuple[str, ...]:
    """The ranges of the networks that rules name."""
    networks = [name.removeprefix(NETWORK) for name in named if name.startswith(NETWORK)]
    return tuple(sorted(f"{name} {found.subnet.cidr}" for name in networks for found in after.ranges.get(name, ())))


@lru_cache(maxsize=100)
def _of(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """A function to the values of an object's fields."""
    return attrgetter(*fields) if len(fields) > 1 else lambda value: tuple(getattr(value, name) for name in fields)


@cache
def _defaults(declared: type[Declared]) -> Mapping[str, Any]:
    """The values of fields that are not allocated, where nobody states them."""
    found = attrs_of(declared).items()
    return {name: None if it.default is MISSING else it.default for name, it in found if not it.allocated}


@cache
def _kept_fields(declared: type[Declared], actor: Owner, partial: bool) -> tuple[str, ...]:
    """The fields that an object keeps where an input of the actor leaves them out."""
    hidden = SetBy.DOCUMENT if actor is Owner.TOOLSTACK else SetBy.TOOLSTACK
    return tuple(
        name
        for name, found in attrs_of(declared).items()
        if found.set_by is SetBy.RUNTIME or (not found.allocated and (partial or found.set_by is hidden))
    )


def _first_subnets(after: Proposal) -> dict[tuple[str, int], Any]:
    """Per network and address family, the subnet that new addresses come from: the first by name."""
    found: dict[tuple[str, int], Any] = {}
    for network, ranges in after.ranges.items():
        for span in sorted(ranges, key=lambda span: span.subnet.name):
            found.setdefault((network, span.version), span.subnet)
    return found


def _usable(ranges: Any, address: str) -> bool:
    number = address_number(address)
    found = range_of(ranges, ip_version(address), number)
    return found is not None and found.usable(number)


def _kept(before: D | None, declared: type[D], values: Mapping[str, Any]) -> D:
    """The object, the very one as before where it is the same: so that a plan finds it unchanged at once."""
    if before is not None and _of(tuple(values))(before) == tuple(values.values()):
        return before
    return unchecked(declared, values)


def new_vm(before: PoolState, vif: Vif) -> dict[str, Vm]:
    """The VM of a toolstack's VIF, where there is none."""
    if vif.vm is None or vif.vm in before.vms:
        return {}
    return {vif.vm: unchecked(Vm, {"name": vif.vm, "host": vif.host, "owner": Owner.TOOLSTACK})}
