"""A whole pool at one instant: what the database holds, as values keyed by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from vnet.grammar.declare import Declared, json_word, shape_of
from vnet.grammar.noun import Noun
from vnet.objects.address_set import AddressSet
from vnet.objects.binding import NOWHERE, AgentStatus, Asked, Binding, Location, asked_of, followed
from vnet.objects.encryption import TunnelKey
from vnet.objects.expectation import Expectation
from vnet.objects.flow_collector import FlowCollector
from vnet.objects.host import Host
from vnet.objects.mirror import FrameMirror
from vnet.objects.network import Network
from vnet.objects.plug_bridge import PlugBridge
from vnet.objects.pool import Pool
from vnet.objects.qos import QosClass
from vnet.objects.retired import RetiredNumber, WireNumber
from vnet.objects.security import SecurityGroup
from vnet.objects.subnet import Subnet
from vnet.objects.vif import Vif
from vnet.objects.vm import Vm

# Every sort of object that people configure, each after those that it refers to.
CONFIGURED: tuple[type[Declared], ...] = (
    Host,
    QosClass,
    Network,
    PlugBridge,
    FlowCollector,
    Subnet,
    AddressSet,
    SecurityGroup,
    Vm,
    Vif,
    FrameMirror,
    Expectation,
)
Renames = Mapping[str, Mapping[str, str]]  # by PoolState's mapping: the new name to the old one
NOUNS: Mapping[str, Noun] = {declared.NOUN.word: declared.NOUN for declared in CONFIGURED}


def meanings(noun: str) -> dict[str, str]:
    """What each field means that a toolstack states of an object, by its word in JSON."""
    declared = next(declared for declared in CONFIGURED if declared.NOUN.word == noun)
    stated = shape_of(declared, flat=True, toolstack=True).words.values()
    return {json_word(*item): item[1].doc for item in stated if isinstance(item, tuple)}


@dataclass(frozen=True, slots=True)
class PoolState:
    """Everything in a pool. `pool` is None in a database where no document was ever applied.

    bindings are keyed (VIF id, host), tunnel keys (host, plane), retired numbers (medium, number); the other mappings by name, a VIF by its id, an agent by
    its host. renames: the objects whose names differ from those in the pool that this one is to follow; none in a pool as it is.
    """

    pool: Pool | None = None
    hosts: Mapping[str, Host] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    subnets: Mapping[str, Subnet] = field(default_factory=dict)
    vms: Mapping[str, Vm] = field(default_factory=dict)
    vifs: Mapping[str, Vif] = field(default_factory=dict)
    bindings: Mapping[tuple[str, str], Binding] = field(default_factory=dict)
    agents: Mapping[str, AgentStatus] = field(default_factory=dict)
    groups: Mapping[str, SecurityGroup] = field(default_factory=dict)
    qos: Mapping[str, QosClass] = field(default_factory=dict)
    address_sets: Mapping[str, AddressSet] = field(default_factory=dict)
    plug_bridges: Mapping[str, PlugBridge] = field(default_factory=dict)
    flow_collectors: Mapping[str, FlowCollector] = field(default_factory=dict)
    mirrors: Mapping[str, FrameMirror] = field(default_factory=dict)
    expectations: Mapping[str, Expectation] = field(default_factory=dict)
    tunnel_keys: Mapping[tuple[str, int], TunnelKey] = field(default_factory=dict)
    retired: Mapping[WireNumber, RetiredNumber] = field(default_factory=dict)
    renames: Renames = field(default_factory=dict, compare=False)

    def snapshot(self) -> PoolState:
        """The same, for a thread to read while mappings of this one go on changing."""
        tables: dict[str, Any] = {
            entry.name: dict(getattr(self, entry.name)) for entry in fields(self) if entry.name != "pool"
        }
        return replace(self, **tables)

    def location(self, vif: str) -> Location:
        """The location of one VIF. Costs one look per host of the pool at most, never one per binding."""
        found = [b for host in self.hosts if (b := self.bindings.get((vif, host))) is not None]
        return self.placed(vif, found)

    def locations(self) -> dict[str, Location]:
        """The location of every bound VIF, in one pass."""
        by_vif: dict[str, list[Binding]] = {}
        for binding in self.bindings.values():
            by_vif.setdefault(binding.vif, []).append(binding)
        return {vif: self.placed(vif, found) for vif, found in by_vif.items()}

    def placed(self, vif: str, bindings: Sequence[Binding]) -> Location:
        """The location of a VIF by its bindings."""
        return Location.of(self.followed(vif, bindings))

    def followed(self, vif: str, bindings: Sequence[Binding]) -> tuple[Binding, ...]:
        """Those of a VIF's bindings that count."""
        networks = ((it, self.networks.get(it.network)) for it in bindings)
        return followed([it for it, on in networks if on is None or on.on(it.host)], self.asked(vif))

    def asked(self, vif: str) -> Asked:
        """Where a VIF is asked for."""
        known = self.vifs.get(vif)
        return asked_of(known) if known is not None else NOWHERE

    def lagging(self, generation: int) -> list[str]:
        """The hosts whose agents have not acknowledged a generation yet."""
        agents = ((host, self.agents.get(host)) for host in sorted(self.hosts))
        return [host for host, agent in agents if agent is not None and agent.generation < generation]

    def still_used(self) -> dict[WireNumber, RetiredNumber]:
        """The numbers that networks have given up, and that some host may still use."""
        return {key: number for key, number in self.retired.items() if self.lagging(number.generation)}


def passed_on(old: Declared, new: Declared | None) -> bool:
    """Whether an object only repeats another value of objects that change."""
    if isinstance(new, Vif) and isinstance(old, Vif):
        return replace(old, vm_labels=new.vm_labels, vm_groups=new.vm_groups) == new
    if isinstance(new, SecurityGroup) and isinstance(old, SecurityGroup):
        return replace(old, network_ranges=new.network_ranges) == new
    return False
