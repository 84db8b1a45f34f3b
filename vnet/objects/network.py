"""Networks: layer 2, as wide as the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, Spelling, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Boolean, Integer, ListOf, choice
from vnet.objects.carriers import CARRIERS, TUNNEL_TYPES, Carrier, Encapsulation, NetworkType, Way, types_with
from vnet.objects.enums import Encryption, Owner, TagType
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage, plugged, some
from vnet.objects.isolation import ISOLATION, PROMISCUOUS
from vnet.objects.labels import LABELS, Labels
from vnet.objects.limits import MAX_GROUPS_OF_VIF
from vnet.objects.multicast import DEFAULT_INTERVAL_S, MAX_INTERVAL_S
from vnet.objects.words import (
    ADDRESS,
    ENCRYPTION,
    GROUP_REF,
    HOST_REF,
    MTU,
    NAME_KIND,
    NUMBER,
    OWNER,
    QOS_REF,
    UPLINK_NAME,
    TagOrUntagged,
)
from vnet.util.frames import SERVICE_VLAN


def _cuts(reason: str) -> Callable[[Usage, str, Network, Network], Cost]:
    """A change that takes the network's VIFs away from each other."""

    def cost(usage: Usage, _: str, old: Network, __: Network) -> Cost:
        count = usage.on_network[old.name]
        return (Disruption.VIF, f"{reason}: {plugged(count)}") if count else (Disruption.NONE, "no VIF is plugged")

    return cost


def _key(usage: Usage, name: str, old: Network, new: Network) -> Cost:
    if usage.on_network[old.name] and old.carrier.way is new.carrier.way is Way.UPLINK:
        return Disruption.FLOWS, "only migrations use it"
    return _cuts("hosts drop each other's frames until all have the new one")(usage, name, old, new)


def _hosts(usage: Usage, _: str, old: Network, new: Network) -> Cost:
    there = sorted(host for network, host in usage.on_network_host if network == old.name)
    if lost := [host for host in there if not new.on(host)]:
        return Disruption.VIF, f"VIFs on {some(lost)} lose the network"
    return Disruption.FLOWS if there else Disruption.NONE, "no VIF is where it leaves"


def _mtu(usage: Usage, _: str, old: Network, new: Network) -> Cost:
    if not usage.on_network[old.name]:
        return Disruption.NONE, "no VIF is plugged"
    if new.mtu > old.mtu:
        return Disruption.NONE, "ports take larger frames; VMs send them once they are told"
    return Disruption.VIF, "VMs lose larger frames until they are told"


def _isolation(usage: Usage, _: str, old: Network, new: Network) -> Cost:
    count = usage.on_network[old.name]
    if not count:
        return Disruption.NONE, "no VIF is plugged"
    if (new.isolation or PROMISCUOUS) == PROMISCUOUS:
        return Disruption.FLOWS, "nothing that passed is dropped"
    return Disruption.VIF, f"VIFs that do not say otherwise are kept apart: {plugged(count)}"


def _snooping(usage: Usage, _: str, old: Network, new: Network) -> Cost:
    if not usage.on_network[old.name]:
        return Disruption.NONE, "no VIF is plugged"
    if not new.multicast_snooping:
        return Disruption.FLOWS, "frames to multicast groups are flooded"
    return Disruption.FLOWS, "VIFs get the multicast groups that they listen to, each once it was asked"


def _keys() -> tuple[Spelling, ...]:
    """The key's words: each tunnel type has its own, with the encapsulation's range."""
    spelled: dict[str, Encapsulation] = {}
    for carrier in CARRIERS.values():
        if carrier.document_key is not None and carrier.encapsulation is not None:
            spelled.setdefault(carrier.document_key, carrier.encapsulation)
    return tuple(
        Spelling(
            word,
            Integer(
                f"a {word.upper() if word == 'vni' else f'{by.name.upper()} key'}, {by.keys[0]}..{by.max_key}",
                by.keys[0],
                by.max_key,
            ),
            f"The {'VXLAN or Geneve network identifier' if word == 'vni' else f'{by.name.upper()} key'}. Left out, one is allocated and kept.",
            only=types_with(word),
            also=("id",),
        )
        for word, by in spelled.items()
    )


@dataclass(frozen=True, slots=True)
class Network(Declared):
    """A layer 2 network."""

    NOUN: ClassVar[Noun] = Noun(
        "network",
        "networks",
        "network",
        "Network",
        "networks",
        doc="Layer 2 networks, by name.",
        unique=("number",),
        held=True,
    )
    TITLE: ClassVar[str] = "a network"
    ORDER: ClassVar[tuple[str, ...]] = ("type", "tag", "vni", "key", "uplink", "mtu")
    VARIANT: ClassVar[str | None] = "type"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    type: NetworkType = attr(
        choice(
            "a network type",
            NetworkType,
            {
                "private": "'private' has two meanings: 'internal' stays on one host; 'vxlan', 'gre' or 'geneve' spans hosts through tunnels",
                "bridge": "'vlan' with 'tag: untagged' is the physical network itself",
                "flat": "'vlan' with 'tag: untagged' is the physical network itself",
                "external": "'vlan' with 'tag: untagged' is the physical network itself",
                "tunnel": "'vxlan', 'gre' or 'geneve'",
                "stt": "'vxlan', 'gre' or 'geneve'",
            },
        ),
        "How frames travel: within one host only (internal), as a VLAN of the physical network, or between hosts in tunnels.",
        change=_cuts("its frames travel another way"),
    )
    number: int = attr(
        NUMBER, "The number by which hosts tell networks apart, unique in the pool, kept for the network's life.",
        set_by=SetBy.RUNTIME, allocated=True,
    )  # fmt: skip
    mtu: int = attr(
        MTU,
        "What a VM may use, in bytes. Left out: for tunnels the underlay's less the encapsulation (VXLAN and Geneve 50, GRE 42, "
        "20 more over IPv6); otherwise 1500, or what the uplink or the underlay carries if that is less.",
        allocated=True,
        change=_mtu,
    )
    key: int | None = attr(_keys(), default=None, allocated=True, change=_key)
    tag: int | None = attr(
        TagOrUntagged(),
        "The VLAN tag on the uplink, or `untagged` for frames without one.",
        default=None,
        only=types_with("tag"),
        needed=True,
        also=("vlan", "vlan-id", "vid"),
        change=_cuts("it becomes another VLAN of the physical network"),
    )
    uplink: str | None = attr(
        UPLINK_NAME,
        "The uplink it is on, one that each of its hosts has.",
        default=None,
        only=types_with("uplink"),
        needed=True,
        also=("pif", "bridge", "bond"),
        change=_cuts("it moves to another physical network"),
    )
    hosts: frozenset[str] = attr(
        ListOf(HOST_REF, "a list of hosts", empty="leave 'hosts' out for a network on every host", as_set=True),
        "The hosts it may be on. Left out: every host.",
        default=frozenset(),
        change=_hosts,
    )
    qos: str | None = attr(
        QOS_REF,
        "The QoS class, an aggregate, that limits all its VIFs together.",
        default=None,
        also=("rate", "rate-limit", "bandwidth", "qos-class"),
        change=(Disruption.FLOWS, "what is above the rates is dropped"),
    )
    vif_qos: str | None = attr(
        QOS_REF,
        "The QoS class of each VIF on it that names none.",
        default=None,
        also=("default-qos",),
        change=(Disruption.FLOWS, "what is above the rates of its VIFs is dropped"),
    )
    isolation: str | None = attr(
        ISOLATION,
        "The isolation of its VIFs that do not state their own. Left out: `promiscuous`.",
        default=None,
        also=("private-vlan", "pvlan", "port-isolation", "isolated"),
        change=_isolation,
    )
    encryption: Encryption | None = attr(
        ENCRYPTION,
        "`required`: frames between hosts go encrypted or not at all. Left out: as `underlay.encryption`.",
        default=None,
        only=TUNNEL_TYPES,
        allocated=True,
        change=_cuts("hosts drop each other's frames until all have changed over"),
    )
    tpid: TagType | None = attr(
        choice("a tag type", TagType),
        "The Ethernet type of the tag: `0x88a8` for a service tag (802.1ad), inside which guests' own tags stay as they are. "
        "Left out: `0x8100`. Where a network on an uplink states it, frames from there are told apart by the type of their tag; else any type counts as `0x8100`. "
        "With the kernel's datapath the number decides alone: on an uplink it is the service tag's, if there is a network with one.",
        default=None,
        only=types_with("tag"),
        also=("ethertype", "tag-type", "qinq", "service-tag"),
        change=_cuts("it becomes another VLAN of the physical network"),
    )
    multicast_snooping: bool = attr(
        Boolean(),
        "Whether frames to a multicast group go only to VIFs that listen to it (IGMP, MLD) and to multicast routers. Else they are flooded.",
        default=False,
        also=("igmp-snooping", "mld-snooping", "mcast-snoop", "mcast-snooping-enable", "snooping"),
        change=_snooping,
    )
    query_interval: int | None = attr(
        Integer(f"a number of seconds, 1..{MAX_INTERVAL_S}", 1, MAX_INTERVAL_S),
        "Seconds between the queries by which hosts ask their VIFs for their multicast groups. Twice as long a group is kept that nobody reports. "
        f"Left out: {DEFAULT_INTERVAL_S}.",
        default=None,
        also=("igmp-query-interval", "mcast-query-interval"),
        change=(Disruption.NONE, "hosts ask their VIFs at other times"),
    )
    querier: str | None = attr(
        ADDRESS,
        "The IPv4 address that the queries of IGMP come from. Left out: 0.0.0.0, as a switch's that is no router. Those of MLD come from a link-local address.",
        default=None,
        also=("igmp-querier", "querier-address"),
        change=(Disruption.NONE, "hosts ask their VIFs from another address"),
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )
    groups: tuple[str, ...] = attr(
        ListOf(GROUP_REF, "a list of security groups", most=MAX_GROUPS_OF_VIF, ordered=True),
        "Security groups of a tier above `vif` that judge each of its VIFs.",
        default=(),
        word="security-groups",
        also=("security-group", "groups", "group"),
        change=_cuts("connections that its security groups do not allow are cut"),
    )
    labels: Labels = attr(
        LABELS,
        "Words that say what it is. Its VIFs have them too, unless they or their VMs state another value of a key.",
        default=(),
        also=("label", "metadata"),
        change=_cuts("connections that rules no longer allow those with its labels are cut"),
    )

    def flaws(self) -> Iterator[Flaw]:
        encapsulation, name = self.carrier.encapsulation, self.type.value
        if (self.key is None) != (encapsulation is None):
            yield Flaw("wrong-variant", "key", f"{name} networks {'need a' if self.key is None else 'have no'} key")
        elif self.key is not None and encapsulation is not None and self.key not in encapsulation.keys:
            yield Flaw("out-of-range", "key", f"{self.key} is outside {encapsulation.keys[0]}..{encapsulation.max_key}")
        for field in ("tag", "uplink"):
            if (getattr(self, field) is not None) != (field in self.carrier.fields):
                verb = "need" if getattr(self, field) is None else "have no"
                yield Flaw("wrong-variant", field, f"{name} networks {verb} {field}")

        if self.encryption is not None and self.carrier.way is not Way.TUNNEL:
            yield Flaw("wrong-variant", "encryption", f"{name} networks have no tunnels to encrypt")

        if self.querier is not None and (":" in self.querier or not self.multicast_snooping):
            message, hint = (
                ("is no IPv4 address", "queries of MLD come from a link-local address of their own")
                if ":" in self.querier
                else ("is asked for by nobody", "say 'multicast-snooping: true'")
            )
            yield Flaw("querier", "querier", f"{self.querier} {message}", hint)

        if self.is_service and not self.tag:
            yield Flaw("service-tag", "tpid", "an untagged network has no tag of any type", "say 'tag: 1..4094'")

    @property
    def is_service(self) -> bool:
        """Whether its tag on the uplink is a service tag."""
        return self.tpid is TagType.SERVICE

    @property
    def vlan(self) -> int:
        """Its VLAN on the uplink: 0 without a tag, SERVICE_VLAN added for a service tag."""
        return (self.tag or 0) | (SERVICE_VLAN if self.is_service else 0)

    @property
    def interval_s(self) -> int:
        """Seconds between queries for multicast groups."""
        return self.query_interval or DEFAULT_INTERVAL_S

    @property
    def carrier(self) -> Carrier:
        return self.type.carrier

    def on(self, host: str) -> bool:
        """Whether the network may have VIFs on this host."""
        return not self.hosts or host in self.hosts

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        words = [self.type.value]
        if self.carrier.way is Way.UPLINK:
            words += [
                f"tag {self.tag}" if self.tag else "untagged",
                *([f"tpid {TagType.SERVICE.value}"] if self.is_service else []),
                f"uplink {self.uplink}",
            ]
        elif self.key is not None:
            words.append(f"{self.carrier.key_word} {self.key}")
        words.append(f"mtu {self.mtu}")
        if self.encryption is not None:
            words.append("encrypted")
        if self.qos is not None:
            words.append(f"qos {self.qos}")
        if self.isolation is not None:
            words.append(self.isolation)
        if self.multicast_snooping:
            words.append("multicast-snooping")
        if self.vif_qos is not None:
            words.append(f"vif-qos {self.vif_qos}")
        if self.hosts:
            words.append(f"on {', '.join(sorted(self.hosts))}")
        return " ".join(words)

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        count = usage.on_network[self.name]
        return (Disruption.VIF, plugged(count)) if count else (Disruption.NONE, "no VIF is plugged")
