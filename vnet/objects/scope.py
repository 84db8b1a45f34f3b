"""Scopes of tokens: what a tenant sees and may change.

One rule: a scope names all that its token sees. An object that it does not name is not there for it, and no change of its touches one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import lru_cache

from vnet.grammar.declare import Declared, attrs_of
from vnet.objects.binding import Binding
from vnet.objects.labels import Labels
from vnet.objects.network import Network
from vnet.objects.pool import Pool
from vnet.objects.qos import QosClass
from vnet.objects.security import SecurityGroup
from vnet.objects.state import passed_on
from vnet.objects.subnet import Subnet
from vnet.objects.tiers import Tier
from vnet.objects.vif import Vif
from vnet.objects.vm import Vm

# Fields of a VIF that guard nobody else. The others are as a new VIF has them, or as the network admin made them.
OWN_FIELDS = frozenset(
    ["id", "network", "mac", "vm", "index", "addresses", "host", "incoming", "epoch", "stays", "owner", "groups", "qos", "awaited", "vm_labels", "vm_groups"]
)  # fmt: skip


@lru_cache(256)
def _compiled(patterns: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, sorted(patterns))) or "(?!)")


def matches(name: str, patterns: frozenset[str]) -> bool:
    """Whether a name is among these, '*' in them standing for anything."""
    return name in patterns or _compiled(patterns).match(name) is not None


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects of a tenant, by patterns of their names, and by labels of networks and VMs. A VIF is its if both its network and its VM are.

    labels: KEY=VALUE; one is enough. Those of networks count once the scope is `resolved`. max_vifs, max_vms: quotas, None for none.
    """

    networks: frozenset[str] = frozenset()
    vms: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    qos: frozenset[str] = frozenset()
    max_vifs: int | None = None
    max_vms: int | None = None
    labels: frozenset[str] = frozenset()

    def resolved(self, networks: Iterable[Network]) -> Scope:
        """The same where these are all networks that there are."""
        named = (
            frozenset(net.name for net in networks if not self.labels.isdisjoint(net.labels)) if self.labels else None
        )
        return replace(self, networks=self.networks | named) if named else self

    def has_vm(self, name: str, labels: Labels) -> bool:
        """Whether a VM is its."""
        return matches(name, self.vms) or not self.labels.isdisjoint(labels)

    def sees(self, value: Declared, vifs: Collection[Vif] = ()) -> bool:
        """Whether an object is its. vifs: those of a VM."""
        match value:
            case Network():
                return matches(value.name, self.networks)
            case Subnet():
                return matches(value.network, self.networks)
            case SecurityGroup():
                return matches(value.name, self.groups)
            case QosClass():
                return matches(value.name, self.qos)
            case Vif():
                return matches(value.network, self.networks) and (
                    value.vm is None or self.has_vm(value.vm, value.vm_labels)
                )
            case Vm():
                its = self.has_vm(value.name, value.labels)
                return its and (not vifs or any(matches(vif.network, self.networks) for vif in vifs))
        return False

    def sees_event(self, network: str, id: str, vif: Vif | None) -> bool:
        """Whether an event on a network is its. id: the VIF's, "" for none; vif: as it is, None for one that is gone, whose VM's labels are gone too."""
        name, labels = (vif.vm or "", vif.vm_labels) if vif is not None else (id.rpartition("/")[0], ())
        return matches(network, self.networks) and (not id or not name or self.has_vm(name, labels))

    def obstacles(
        self, old: Declared | None, new: Declared | None, vif: Vif | None, pool: Pool | None
    ) -> Iterator[str]:
        """The reasons why it may not make this change. vif: of a binding."""
        if old is not None and passed_on(old, new):
            return
        for value in (old, new):
            if isinstance(value, Binding):
                if vif is None or not self.sees(vif):
                    yield f"VIF {value.vif}"
            elif value is not None and (isinstance(value, Network) or not self._its(value)):
                yield f"{value.NOUN.text} {getattr(value, value.NOUN.key)}"
        for value in (old, new):
            if isinstance(value, SecurityGroup) and value.tier is not Tier.VIF:
                yield f"tier {value.tier.value} of security group {value.name}"  # it judges VIFs of others
        if isinstance(new, Vm) and new.groups != (old.groups if isinstance(old, Vm) else ()):
            yield f"security groups of VM {new.name}"
        if isinstance(new, Vm) and not self.labels.issuperset(
            {*new.labels} ^ {*(old.labels if isinstance(old, Vm) else ())}
        ):
            yield f"labels of VM {new.name}"  # rules of others let those with a label in
        if isinstance(new, Vif):
            yield from self._fields(old if isinstance(old, Vif) else None, new, pool)

    def _its(self, value: Declared) -> bool:
        return self.has_vm(value.name, value.labels) if isinstance(value, Vm) else self.sees(value)

    def _fields(self, old: Vif | None, new: Vif, pool: Pool | None) -> Iterator[str]:
        groups, qos = (frozenset(old.groups), old.qos) if old is not None else (frozenset[str](), None)
        yield from (
            f"security group {name}" for name in sorted(groups ^ set(new.groups)) if not matches(name, self.groups)
        )
        changed = {qos, new.qos} - {None} if qos != new.qos else set()
        yield from (f"QoS class {name}" for name in sorted(filter(None, changed)) if not matches(name, self.qos))
        for name, found in attrs_of(Vif).items():
            default = pool.locking_mode if name == "locking_mode" and pool is not None else found.default
            if name not in OWN_FIELDS and getattr(new, name) != (getattr(old, name) if old is not None else default):
                yield f"field {found.word} of VIF {new.id}"
