"""Runtime objects, which agents write: where VIFs are, how hosts are, what happened."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import msgspec

from vnet.grammar.declare import Declared, Flaw, SetBy, attr, attrs_of
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Boolean, Integer, ListOf, choice
from vnet.objects.behind import MacBehind, MacsBehind
from vnet.objects.enums import BindingState, LockingMode
from vnet.objects.identity import Identity
from vnet.objects.labels import Labels
from vnet.objects.limits import MAX_RESERVED_OFPORT, MIN_RESERVED_OFPORT
from vnet.objects.link_local import LinkLocal, LinkLocalList
from vnet.objects.multicast import Listening, ListeningKind
from vnet.objects.vif import Vif
from vnet.objects.words import COUNT, HOST_REF, LINE, TEXTS, VIF_REF


def _published(name: str) -> Any:
    """A VIF's field that its peers need: the binding has it too."""
    found = attrs_of(Vif)[name]
    return attr(found.spellings, default=found.default)


_PEERS_NEED = tuple(name for name, found in attrs_of(Vif).items() if found.peers)
PUBLISHED = (*_PEERS_NEED, "unlocked")


def published(vif: Vif) -> dict[str, Any]:
    """The fields of a VIF that its binding repeats, PUBLISHED, for hosts that see the binding alone."""
    fields = {name: getattr(vif, name) for name in _PEERS_NEED}
    return {**fields, "unlocked": vif.locking_mode is LockingMode.UNLOCKED}


@dataclass(frozen=True, slots=True)
class Binding(Declared):
    """A VIF on a host: the host's agent has claimed the port. Peers need no more than this row to reach the VIF.

    epoch orders a VIF's bindings: of the active ones the highest is where it runs; a higher one that is not active yet is a
    migration's destination. ready: the host's flows are in, answered by a barrier. acked: the hosts that have programmed
    this binding. since: milliseconds since 1970, of the last change of state. moved: it came here by a migration of late, or has
    just joined its first group, so this host's connection tracking has not seen its TCP connections begin. ofport: the number that its port is to ask for,
    under which it is programmed while it is awaited; 0 for none. connections: what became of its tracked connections when it came here by a
    migration. link_locals: the addresses that its guest has chosen, which it may use as its own. behind: the MACs that
    it was heard to send as, besides its own. listening: the multicast groups that it listens to; None while that is not known.
    """

    NOUN: ClassVar[Noun] = Noun("binding", "bindings", "binding", "Binding", "bindings", key="vif", second="host")
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    vif: str = attr(VIF_REF, "The VIF.")
    host: str = attr(HOST_REF, "The host.")
    network: str = _published("network")
    mac: str = _published("mac")
    epoch: int = attr(COUNT, "Its place among the VIF's bindings.")
    state: BindingState = attr(choice("a state", BindingState), "What the port may do.", default=BindingState.ACTIVE)
    addresses: tuple[str, ...] = _published("addresses")
    unlocked: bool = attr(Boolean(), "Whether the VIF may use other addresses than its own.", default=False)
    ready: bool = attr(Boolean(), "Whether the host has programmed it.", default=False)
    acked: frozenset[str] = attr(
        ListOf(HOST_REF, "a list of hosts", as_set=True), "The hosts that have programmed it.", default=frozenset()
    )
    since: int = attr(COUNT, "Milliseconds since 1970, of the last change of state.", default=0)
    groups: tuple[str, ...] = _published("groups")
    dhcp_server: bool = _published("dhcp_server")
    isolation: str | None = _published("isolation")
    also: tuple[Identity, ...] = _published("also")
    vrrp: tuple[int, ...] = _published("vrrp")
    labels: Labels = _published("labels")
    vm_labels: Labels = _published("vm_labels")
    moved: bool = attr(Boolean(), "Whether it came by a migration, or joined its first group, of late.", default=False)
    connections: str = attr(LINE, "What became of its tracked connections when it came here.", default="")
    ofport: int = attr(
        Integer("an OpenFlow port number", 0, MAX_RESERVED_OFPORT),
        "The number that its port is to ask for; 0 for none.",
        default=0,
    )
    tiers: bool = attr(
        Boolean(),
        "Whether groups judge it that are not its own: those of its VM, its network or the pool.",
        default=False,
    )
    link_locals: tuple[LinkLocal, ...] = attr(
        LinkLocalList(), "The link-local addresses that its guest has chosen.", default=()
    )

    behind: tuple[MacBehind, ...] = attr(MacsBehind(), "The MACs that were heard behind it.", default=())
    listening: Listening | None = attr(ListeningKind(), "The multicast groups that it listens to.", default=None)

    def flaws(self) -> Iterator[Flaw]:
        if self.ofport and self.ofport < MIN_RESERVED_OFPORT:
            yield Flaw(
                "out-of-range", "ofport", f"{self.ofport} is outside {MIN_RESERVED_OFPORT}..{MAX_RESERVED_OFPORT}"
            )

    @property
    def plugged(self) -> bool:
        """Whether the VIF's port is on the host; else it is awaited there."""
        return self.state is not BindingState.AWAITED


def acknowledgement(binding: Binding) -> str:
    """Names a binding of a VIF for as long as it has its epoch."""
    return f"{binding.host} {binding.epoch}"


# Objects of agents' problems: a switch that is away, and a pool database that the host does not follow.
SWITCH, POOL = "ovs-vswitchd", "pool"
ELSEWHERE = " by "


@dataclass(frozen=True, slots=True)
class AgentStatus(Declared):
    """The last report of a host's agent. heartbeat and started: milliseconds since 1970.

    generation: the highest of the pool's that it has programmed. problems: object ("vif web1/0") to what is wrong with it. switch: the
    UUID of the row in table Open_vSwitch, with ELSEWHERE and where it connects to if the agent runs on another machine; "" of an agent that does not write it. rival: another agent that was started as this host.
    acked: by VIF, `acknowledgement` of the binding. masters: by VIF, the numbers of the virtual routers that it advertised itself as the master of, of late. health: a HostHealth (vnet/db/health.py) as JSON.
    """

    NOUN: ClassVar[Noun] = Noun("agent", "agents", "agent", "Agent", "agents", key="host")
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    host: str = attr(HOST_REF, "The host.")
    generation: int = attr(COUNT, "The highest generation it has programmed.", default=0)
    heartbeat: int = attr(COUNT, "When it last reported.", default=0, ephemeral=True)
    started: int = attr(COUNT, "When it started.", default=0)
    version: str = attr(LINE, "Its version.", default="")
    ovs_version: str = attr(LINE, "Open vSwitch's version.", default="")
    problems: Mapping[str, str] = attr(TEXTS, "What is wrong, by object.", default={})
    switch: str = attr(LINE, "The switch that it programs.", default="")
    machine: str = attr(LINE, "The machine that it runs on.", default="")
    rival: str = attr(LINE, "Another agent that stands by as this host.", default="")
    acked: Mapping[str, str] = attr(
        TEXTS, "The bindings of VIFs that move and that it has programmed, by VIF.", default={}
    )
    masters: Mapping[str, str] = attr(TEXTS, "The virtual routers of which VIFs are the masters, by VIF.", default={})
    health: str = attr(LINE, "What it has found out about the network between the hosts, as JSON.", default="")

    @property
    def elsewhere(self) -> str:
        """The machine that it runs on, if that is not the host; "" if it is."""
        return self.machine if ELSEWHERE in self.switch else ""


@dataclass(frozen=True, slots=True)
class Event(Declared):
    """An occurrence in the pool. time: milliseconds since 1970; the object fields are empty where they do not apply."""

    NOUN: ClassVar[Noun] = Noun("event", "events", "event", "Event", "", key="")
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    time: int = attr(COUNT, "When it happened.")
    kind: str = attr(LINE, "Its sort.")
    text: str = attr(LINE, "The event in words.")
    host: str = attr(LINE, "The host it is about.", default="")
    network: str = attr(LINE, "The network it is about.", default="")
    vif: str = attr(LINE, "The VIF it is about.", default="")


class Asked(NamedTuple):
    """Where a VIF is asked for. hosts: the one that it is wanted on, and the destination of its migration; empty where it is any host's to run.

    former: the other hosts that may run it until one of `hosts` has it: those that ran it when it was asked for there. None where nobody has stated them:
    then any may.
    """

    hosts: tuple[str, ...] = ()
    former: frozenset[str] | None = None

    def allows(self, host: str) -> bool:
        """Whether a host may run it where nobody else does."""
        return not self.hosts or host in self.hosts or self.former is None or host in self.former

    def and_also(self, other: Asked) -> Asked:
        """Where one of two rows that come by themselves has asked for it."""
        if not self.hosts or not other.hosts:
            return self if self.hosts else other
        both = None if self.former is None or other.former is None else self.former | other.former
        return Asked(tuple(dict.fromkeys((*self.hosts, *other.hosts))), both)


NOWHERE = Asked()


def asked_for(host: str | None, incoming: str | None, stays: str) -> Asked:
    """Where a VIF is asked for, by these fields of it."""
    hosts = tuple(name for name in (host, incoming) if name)
    if not hosts:
        return NOWHERE
    first, *former = stays.split(" ")
    return Asked(hosts, frozenset(former) if first == hosts[0] else None)


def asked_of(vif: Vif) -> Asked:
    """Where a VIF is asked for, by its row."""
    return asked_for(vif.host, vif.incoming, vif.stays)


def followed(bindings: Sequence[Binding], asked: Asked) -> tuple[Binding, ...]:
    """The bindings of one VIF that count, of those on hosts that its network may be on.

    No host takes a VIF from one that it is asked for on, nor runs one that is asked for on another, unless it did before: such a binding counts only while
    it is older than those of the hosts that may. So a host that was taken over draws no such VIF to itself, and one that a VIF has left by a migration
    relays until it lets go.
    """
    if not asked.hosts:
        return tuple(bindings)
    may: Collection[str] = asked.hosts
    newest = _newest(bindings, may)
    if newest is None:
        if asked.former is None:
            return tuple(bindings)
        may = {*asked.hosts, *asked.former}
        newest = _newest(bindings, may)
    return tuple(it for it in bindings if it.host in may or (newest is not None and it.epoch < newest))


def _newest(bindings: Iterable[Binding], hosts: Collection[str]) -> int | None:
    """The highest epoch of these hosts' bindings, but for those that a migration is to make active."""
    return max((it.epoch for it in bindings if it.host in hosts and not it.state.moving), default=None)


class Location(msgspec.Struct, frozen=True):
    """The hosts of a VIF, derived from its bindings alone: never remembered."""

    current: Binding | None = None
    incoming: Binding | None = None
    superseded: tuple[Binding, ...] = ()

    @classmethod
    def of(cls, bindings: Sequence[Binding]) -> Location:
        """The location that the bindings of one VIF amount to, of those that count."""
        if len(bindings) == 1:  # as nearly all have
            return cls(None, bindings[0]) if bindings[0].state.moving else cls(bindings[0])
        ordered = sorted(bindings, key=lambda binding: binding.epoch, reverse=True)
        active = [binding for binding in ordered if not binding.state.moving]
        current = active[0] if active else None
        waiting = [b for b in ordered if b.state.moving and (current is None or b.epoch > current.epoch)]
        return cls(current, waiting[0] if waiting else None, tuple(active[1:]))


def stays(old: Vif | None, new: Vif, at: Location) -> str:
    """What is stated of a VIF as it is asked for anew: the host that it is wanted on, and the others that run it now, or ran it where it was asked for before.

    at: where it is. So what a host makes up of where the VIF was before adds nothing.
    """
    hosts, before = asked_of(new).hosts, asked_of(old).hosts if old is not None else ()
    running = [at.current] if at.current is not None else []
    running += [it for it in at.superseded if it.host in before]
    return " ".join((*hosts[:1], *sorted({it.host for it in running} - {*hosts})))
