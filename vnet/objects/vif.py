"""VIFs: VMs' interfaces on networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Boolean, Integer, ListOf, choice
from vnet.objects.behind import MAX_BEHIND
from vnet.objects.enums import LockingMode, Owner
from vnet.objects.identity import ALSO, VRRP, Identity, virtual_router
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage, some
from vnet.objects.isolation import ISOLATION, PROMISCUOUS
from vnet.objects.labels import LABELS, Labels
from vnet.objects.limits import MAX_GROUPS_OF_VIF, MAX_VIFS_OF_VM
from vnet.objects.values import Trunk
from vnet.objects.words import (
    ADDRESS,
    ANY_NUMBER,
    GROUP_REF,
    HOST_REF,
    LINE,
    MAC_KIND,
    NETWORK_REF,
    OWNER,
    QOS_REF,
    VIF_ID_KIND,
    VM_REF,
    TrunkTags,
)

_PORT_STAYS: Cost = (Disruption.NONE, "its port stays as it is")


def _while_plugged(cost: Callable[[Vif, Vif], Cost]) -> Callable[[Usage, str, Vif, Vif], Cost]:
    """The cost of a change that nobody notices of a VIF that is not plugged."""

    def judged(usage: Usage, _: str, old: Vif, new: Vif) -> Cost:
        return cost(old, new) if usage.is_plugged(old.id) else (Disruption.NONE, "it is not plugged")

    return judged


def _addresses(old: Vif, new: Vif) -> Cost:
    lost = sorted(set(old.addresses) - set(new.addresses))
    if lost and new.locking_mode is LockingMode.LOCKED:
        return Disruption.VIF, f"what it sends from {some(lost)} is dropped"
    return Disruption.FLOWS, "it may use the new ones at once"


def _locking_mode(old: Vif, new: Vif) -> Cost:
    if new.locking_mode is LockingMode.DISABLED:
        return Disruption.VIF, "it sends and receives nothing any more"
    if new.locking_mode is LockingMode.LOCKED:
        return Disruption.FLOWS, "only frames with another MAC or address than its own are dropped"
    return Disruption.FLOWS, "nothing that passed is dropped"


def _router(_: Vif, new: Vif) -> Cost:
    if new.router:
        return Disruption.FLOWS, "it may send router advertisements and redirects"
    return Disruption.VIF, "its router advertisements and redirects are dropped"


def _dhcp_server(_: Vif, new: Vif) -> Cost:
    if new.dhcp_server:
        return Disruption.FLOWS, "it may answer DHCP clients"
    return Disruption.VIF, "its answers to DHCP clients are dropped"


def _trunk(old: Vif, new: Vif) -> Cost:
    if old.trunk is None or new.trunk is None:
        lost = old.trunk is not None
    else:
        lost = bool(new.trunk.tags) and (not old.trunk.tags or bool(set(old.trunk.tags) - set(new.trunk.tags)))
    return (Disruption.VIF, "it loses tags") if lost else (Disruption.FLOWS, "it gets tags and loses none")


def _groups(old: Vif, new: Vif) -> Cost:
    if not new.groups:
        return Disruption.FLOWS, "it is not filtered any more"
    return Disruption.VIF, "connections that its groups do not allow are cut"


def _labels(_: Vif, __: Vif) -> Cost:
    return Disruption.VIF, "connections that rules no longer allow those with its labels are cut"


def _isolation(_: Vif, new: Vif) -> Cost:
    if new.isolation == PROMISCUOUS:
        return Disruption.FLOWS, "nothing that passed is dropped"
    return Disruption.VIF, "it no longer reaches the VIFs that it is kept apart from"


def _identities(_: Vif, new: Vif) -> Cost:
    if new.locking_mode is LockingMode.LOCKED:
        return Disruption.VIF, "what it sends as an identity that it no longer has is dropped"
    return Disruption.FLOWS, "others reach it at other MACs"


def _vrrp(old: Vif, new: Vif) -> Cost:
    if set(old.vrrp) <= set(new.vrrp):
        return Disruption.FLOWS, "it may be another virtual router"
    return Disruption.VIF, "it is a virtual router no more"


def _limits(qos: str | None) -> str:
    return f"what is above the rates of {qos} is dropped" if qos is not None else "its rates are not limited any more"


@dataclass(frozen=True, slots=True)
class Vif(Declared):
    """A VM's interface on a network, wherever the VM runs."""

    NOUN: ClassVar[Noun] = Noun(
        "vif", "vifs", "VIF", "Vif", "vifs", key="id", doc="Its interfaces, in order: the first is VM/0.",
        also=("interfaces", "nics", "vif", "ports"), parent="vm",
    )  # fmt: skip
    TITLE: ClassVar[str] = "a VIF"
    ORDER: ClassVar[tuple[str, ...]] = ("network", "id", "mac", "addresses", "trunk")

    id: str = attr(
        VIF_ID_KIND, "The `external_ids:iface-id` of its OVS port. Left out: VM/INDEX, as web1/0.", allocated=True
    )
    network: str = attr(
        NETWORK_REF,
        "The network it is on.",
        change=_while_plugged(lambda old, new: (Disruption.VIF, f"it leaves {old.network} for {new.network}")),
        peers=True,
    )
    mac: str = attr(
        MAC_KIND,
        "Its MAC address. Left out, one is allocated and kept.",
        also=("mac-address", "hwaddr"),
        allocated=True,
        change=_while_plugged(lambda _, __: (Disruption.VIF, "the VM has the old MAC until it is told")),
        peers=True,
    )
    vm: str | None = attr(
        VM_REF, "The VM it is of, made if there is none.", default=None, set_by=SetBy.TOOLSTACK, change=_PORT_STAYS
    )
    index: int = attr(
        Integer(f"an index, 0..{MAX_VIFS_OF_VM - 1}", 0, MAX_VIFS_OF_VM - 1, bounded=False),
        "Its place among the VM's VIFs. Left out, the first that is free.",
        default=0,
        set_by=SetBy.TOOLSTACK,
        allocated=True,
        change=_PORT_STAYS,
    )
    addresses: tuple[str, ...] = attr(
        ListOf(ADDRESS, "a list of addresses", ordered=True),
        "Its IP addresses. Left out, one is taken from the network's subnets, per address family, and kept; `[]` is none.",
        default=(),
        also=("address", "ip", "ips", "fixed-ips"),
        allocated=True,
        change=_while_plugged(_addresses),
        peers=True,
    )
    locking_mode: LockingMode = attr(
        choice("a locking mode", LockingMode),
        "Instead of `defaults.vif.locking-mode`.",
        default=LockingMode.LOCKED,
        allocated=True,
        change=_while_plugged(_locking_mode),
    )
    router: bool = attr(
        Boolean(),
        "Whether it may send router advertisements and redirects although it is locked.",
        default=False,
        change=_while_plugged(_router),
    )
    dhcp_server: bool = attr(
        Boolean(),
        "Whether it may answer DHCP clients: although it is locked, and VIFs in security groups.",
        default=False,
        also=("dhcp",),
        change=_while_plugged(_dhcp_server),
        peers=True,
    )
    trunk: Trunk | None = attr(
        TrunkTags(),
        "The VLAN tags it carries besides untagged frames, on an untagged VLAN network: a list, or `all`.",
        default=None,
        also=("trunks", "tags", "vlans"),
        change=_while_plugged(_trunk),
    )
    host: str | None = attr(
        HOST_REF,
        "The host it is wanted on; left out, wherever its port is.",
        default=None,
        set_by=SetBy.TOOLSTACK,
        change=_PORT_STAYS,
    )
    incoming: str | None = attr(
        HOST_REF, "The destination of its migration.", default=None, set_by=SetBy.RUNTIME, change=_PORT_STAYS
    )
    epoch: int = attr(
        ANY_NUMBER, "How many bindings it has had; the next one takes epoch + 1.", default=0, set_by=SetBy.RUNTIME
    )
    stays: str = attr(
        LINE,
        "The host that it was asked for on last, and those where it ran then: it may stay there until it is claimed where it is wanted.",
        default="",
        set_by=SetBy.RUNTIME,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME, change=_PORT_STAYS
    )  # fmt: skip
    groups: tuple[str, ...] = attr(
        ListOf(GROUP_REF, "a list of security groups", most=MAX_GROUPS_OF_VIF, ordered=True),
        "The security groups whose rules it obeys, all of them together. In none, it is not filtered. A trunk VIF is in none.",
        default=(),
        word="security-groups",
        also=("security-group", "groups", "group", "sg", "sgs", "firewall"),
        change=_while_plugged(_groups),
        peers=True,
    )
    qos: str | None = attr(
        QOS_REF,
        "The QoS class that limits its rates, instead of its network's `vif-qos`.",
        default=None,
        also=("rate", "rate-limit", "bandwidth", "qos-class"),
        change=_while_plugged(lambda _, new: (Disruption.FLOWS, _limits(new.qos))),
    )
    also: tuple[Identity, ...] = attr(
        ALSO,
        "What it may be besides: MACs with their addresses. The addresses of a virtual router stand here by its virtual MAC.",
        default=(),
        word="also",
        also=("identities", "aliases", "allowed-address-pairs"),
        change=_while_plugged(_identities),
        peers=True,
    )
    vrrp: tuple[int, ...] = attr(
        VRRP,
        "The virtual routers (RFC 9568) of which it may be the master: it may use their virtual MACs, which others on the network may have as well.",
        default=(),
        also=("vrid", "vrids", "virtual-routers"),
        change=_while_plugged(_vrrp),
        peers=True,
    )
    isolation: str | None = attr(
        ISOLATION,
        "Whom it reaches on its network: only promiscuous VIFs and the physical network (isolated), those of its community too, or everybody "
        "(promiscuous). Left out, as its network says. What is not promiscuous is locked, and no trunk.",
        default=None,
        also=("private-vlan", "pvlan", "port-isolation", "isolated", "community"),
        change=_while_plugged(_isolation),
        peers=True,
    )
    awaited: bool = attr(
        Boolean(),
        "Whether all hosts program it on `host` before its port is there.",
        default=False,
        set_by=SetBy.TOOLSTACK,
        change=_PORT_STAYS,
    )

    learn: int = attr(
        Integer(f"a number of MACs, 0..{MAX_BEHIND}", 0, MAX_BEHIND),
        "How many MACs behind it are learned, so that frames to them are not flooded. For an unlocked VIF of a tunnel or internal network.",
        default=0,
        also=("mac-learning", "learned-macs", "mac-limit"),
        change=_while_plugged(lambda _, new: (Disruption.FLOWS, f"{new.learn or 'no'} MACs behind it are learned")),
    )
    labels: Labels = attr(
        LABELS,
        "Words that say what it is, besides those of its network and VM. Of one key its own holds, then its VM's.",
        default=(),
        also=("label", "metadata"),
        change=_while_plugged(_labels),
        peers=True,
    )
    vm_labels: Labels = attr(
        LABELS,
        "The labels of its VM.",
        default=(),
        set_by=SetBy.RUNTIME,
        allocated=True,
        change=_while_plugged(_labels),
        peers=True,
    )
    vm_groups: tuple[str, ...] = attr(
        ListOf(GROUP_REF, "a list of security groups", ordered=True),
        "The security groups of its VM.",
        default=(),
        set_by=SetBy.RUNTIME,
        allocated=True,
        change=_while_plugged(lambda _, __: (Disruption.VIF, "connections that its VM's groups do not allow are cut")),
    )
    former_network: str | None = attr(
        NETWORK_REF,
        "The network that it is put back on after its quarantine; none while it is in none.",
        default=None,
        set_by=SetBy.RUNTIME,
    )
    former_addresses: tuple[str, ...] = attr(
        ListOf(ADDRESS, "a list of addresses", ordered=True),
        "Its addresses there, which are kept for it.",
        default=(),
        set_by=SetBy.RUNTIME,
    )

    def flaws(self) -> Iterator[Flaw]:
        if self.groups and self.trunk is not None:
            # Its tags share a connection tracking zone, where equal addresses on two of them would be one connection.
            hint = "its tags are networks of their own; filter where they end"
            yield Flaw("trunk", "groups", "a trunk VIF cannot be in security groups", hint)
        yield from self._wrong_identities()
        if self.learn and self.locking_mode is not LockingMode.UNLOCKED:
            hint = "'locking-mode: unlocked' lets it send as other MACs than its own"
            yield Flaw("learn", "learn", "MACs are learned behind an unlocked VIF only", hint)
        if self.awaited and self.host is None:
            yield Flaw("awaited", "host", "a VIF is awaited where it is wanted: 'host' is missing")

    def _wrong_identities(self) -> Iterator[Flaw]:
        taken, macs = set(self.addresses), {self.mac}
        for identity in self.also:
            router = virtual_router(identity.mac)
            if identity.mac in macs:
                hint = (
                    "its own addresses stand in 'addresses'"
                    if identity.mac == self.mac
                    else "state its addresses together"
                )
                yield Flaw("twice", "also", f"{identity.mac} is its MAC already", hint, (identity.mac,))
            if router is not None and router not in self.vrrp:
                message, hint = (
                    f"{identity.mac} is the virtual MAC of virtual router {router}",
                    f"add 'vrrp: [{router}]'",
                )
                yield Flaw("vrrp", "also", message, hint, (identity.mac,), relies_on=("vrrp",))
            if twice := sorted(taken & set(identity.addresses)):
                yield Flaw(
                    "twice",
                    "also",
                    f"it has address {twice[0]} already",
                    "an address goes with one MAC",
                    (identity.mac,),
                )
            macs.add(identity.mac)
            taken |= set(identity.addresses)
        if self.vrrp and self.trunk is not None:
            yield Flaw("vrrp", "vrrp", "a trunk VIF cannot be a virtual router", "its tags are networks of their own")

    @property
    def name(self) -> str:
        return self.id

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        trunk = f" trunk {TrunkTags().plain(self.trunk)}" if self.trunk is not None else ""
        groups = f" in {', '.join(self.groups)}" if self.groups else ""
        qos = f" qos {self.qos}" if self.qos is not None else ""
        isolation = f" {self.isolation}" if self.isolation is not None else ""
        isolation += "".join(f" also {identity.mac}" for identity in self.also) + "".join(
            f" vrrp {router}" for router in self.vrrp
        )
        return " ".join([f"{self.network} {self.mac}", *self.addresses]) + trunk + isolation + groups + qos

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return (
            (Disruption.VIF, "it is plugged") if usage.is_plugged(self.id) else (Disruption.NONE, "it is not plugged")
        )
