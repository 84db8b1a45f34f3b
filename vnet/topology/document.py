"""The topology document, as values. What a document may say is written here, once: key, kind and meaning.

A spec is what a person wrote: what was left out is None, and `desired_state` allocates it. Defaults that need no pool are
already filled in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from vnet.objects.carriers import MAX_GRE_KEY, MAX_VNI, NetworkType, types_with
from vnet.objects.security import ANY, Direction, PortRange, Verdict
from vnet.objects.values import (
    MAX_MTU,
    MIN_MTU,
    BondHash,
    BondMode,
    LacpTime,
    LockingMode,
    Protocol,
)
from vnet.topology.errors import Place, Problem
from vnet.topology.grammar import Integer, ListOf, MapOf, NotYet, Refused, Scalar, choice
from vnet.topology.kinds import (
    ADDRESS,
    CIDR,
    DEVICE,
    GROUP_NAME,
    HOST_REF,
    MAC_KIND,
    NAME_KIND,
    NETWORK_REF,
    REMOTE,
    UPLINK_NAME,
    VIF_ID_KIND,
    VTEP,
    Ports,
    RuleProtocol,
    Tag,
    Trunk,
    text_kind,
)
from vnet.topology.record import Record, RecordOf, key
from vnet.topology.source import Source
from vnet.topology.tree import clip

API_VERSION = "vnet/v1"
MAX_VIFS_OF_VM = 256
MAX_MEMBERS = 16  # of a bond
MAX_RULES = 1000  # of a security group
MAX_GROUPS_OF_VIF = 32
DEFAULT_UNDERLAY_MTU = 1500
MTU = Integer(f"an MTU in bytes, {MIN_MTU}..{MAX_MTU}", MIN_MTU, MAX_MTU)
LOCKING_MODE = choice("a locking mode", LockingMode)


class Reach(Enum):
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class VifDefaults(Record):
    """What VIFs have that do not say otherwise."""

    WHAT: ClassVar[str] = "defaults.vif"

    locking_mode: LockingMode = key(
        LOCKING_MODE,
        "What a VIF may send: as its own MAC and addresses only (locked), anything (unlocked), or nothing (disabled).",
        default=LockingMode.LOCKED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults(Record):
    """What objects have that do not say otherwise."""

    WHAT: ClassVar[str] = "defaults"

    vif: VifDefaults = key(RecordOf(VifDefaults), "For every VIF of the pool.", default=VifDefaults())


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSpec(Record):
    """A host's way to the physical network: one NIC, or several as a bond. Its name is the same on every host; NICs differ."""

    WHAT: ClassVar[str] = "an uplink"

    members: tuple[str, ...] = key(
        ListOf(DEVICE, "a list of NICs", empty="an uplink needs a NIC", most=MAX_MEMBERS),
        "The host's NICs, by device name. Two or more are a bond, and need `mode`.",
        also=("nic", "nics", "slaves", "interfaces", "ports"),
    )
    mode: BondMode | None = key(
        choice(
            "a bond mode",
            BondMode,
            {"802.3ad": "did you mean 'lacp'?", "balance-tcp": "did you mean 'lacp' with 'hash: tcpudp-ports'?"},
        ),
        "How the members of a bond share: one at a time, by source MAC, or as LACP (802.1AX) with the switch agrees.",
        default=None,
        also=("bond-mode", "bond"),
    )
    lacp_time: LacpTime = key(
        choice("an LACP time", LacpTime),
        "LACP bonds: how often the ends tell each other they live: every 30 s (slow) or every second (fast).",
        default=LacpTime.SLOW,
    )
    hash: BondHash = key(
        choice("a bond hash", BondHash),
        "LACP bonds: what frames are spread over the members by.",
        default=BondHash.SOURCE_MAC,
        also=("xmit-hash-policy", "hashing-algorithm"),
    )
    mtu: int | None = key(MTU, "MTU of the members, in bytes; left out, it stays what it is.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec(Record):
    """A virtualization host."""

    WHAT: ClassVar[str] = "a host"

    address: str | None = key(
        VTEP,
        "The host's tunnel endpoint (VTEP), IPv4 or IPv6, one family in a pool. Needed where tunnel networks may be.",
        default=None,
        also=("ip", "vtep", "tunnel-ip", "local-ip", "addresses"),
    )
    uplinks: Mapping[str, UplinkSpec] = key(
        MapOf(UPLINK_NAME, RecordOf(UplinkSpec), "a map of uplinks"),
        "Ways to the physical network, by name.",
        default={},
        also=("bonds", "nics", "pifs"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay(Record):
    """The physical network between the hosts."""

    WHAT: ClassVar[str] = "underlay"

    mtu: int = key(
        MTU,
        "The largest IP packet that the physical network carries between hosts, in bytes.",
        default=DEFAULT_UNDERLAY_MTU,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec(Record):
    """A layer 2 network."""

    WHAT: ClassVar[str] = "a network"
    VARIANT: ClassVar[str | None] = "type"

    type: NetworkType = key(
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
    )
    tag: int | None = key(
        Tag(),
        "The VLAN tag on the uplink, or `untagged` for frames without one.",
        default=None,
        only=types_with("tag"),
        needed=True,
        also=("vlan", "vlan-id", "vid"),
    )
    uplink: str | None = key(
        UPLINK_NAME,
        "The uplink it is on, one that each of its hosts has.",
        default=None,
        only=types_with("uplink"),
        needed=True,
        also=("pif", "bridge", "bond"),
    )
    vni: int | None = key(
        Integer(f"a VNI, 1..{MAX_VNI}", 1, MAX_VNI),
        "The VXLAN or Geneve network identifier. Left out, one is allocated and kept.",
        default=None,
        only=types_with("vni"),
        also=("id",),
    )
    gre_key: int | None = key(
        Integer(f"a GRE key, 0..{MAX_GRE_KEY}", 0, MAX_GRE_KEY),
        "The GRE key. Left out, one is allocated and kept.",
        default=None,
        name="key",
        only=types_with("key"),
    )
    hosts: tuple[str, ...] | None = key(
        ListOf(HOST_REF, "a list of hosts", empty="leave 'hosts' out for a network on every host"),
        "The hosts it may be on. Left out: every host.",
        default=None,
    )
    mtu: int | None = key(
        MTU,
        "What a VM may use, in bytes. Left out: for tunnels the underlay's less the encapsulation (VXLAN and Geneve 50, GRE 42, "
        "20 more over IPv6); otherwise 1500, or what the uplink or the underlay carries if that is less.",
        default=None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetSpec(Record):
    """A range of addresses on a network; VIFs that leave theirs out get one from it."""

    WHAT: ClassVar[str] = "a subnet"

    network: str = key(NETWORK_REF, "The network it is on.")
    cidr: str = key(CIDR, "The range, as ADDRESS/LENGTH.", also=("range", "prefix", "subnet"))
    gateway: str | None = key(
        ADDRESS, "The router's address in it; never given to a VIF.", default=None, also=("router",)
    )
    dhcp: None = key(NotYet("DHCP comes with the address services"), "Answer DHCP on the VIF's own host.", default=None)


_VERDICTS = dict.fromkeys(("accept", "permit", "pass", "true"), "did you mean 'allow'?") | dict.fromkeys(
    ("deny", "reject", "block", "discard", "refuse", "false"), "did you mean 'drop'?"
)
VERDICT = choice("an action", Verdict, _VERDICTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDefaults(Record):
    """What happens to a new connection that no rule of the VIF's groups matches. Of several groups, one that drops wins."""

    WHAT: ClassVar[str] = "default"

    ingress: Verdict = key(VERDICT, "To one that comes to the VM.", default=Verdict.DROP, also=("in", "inbound"))
    egress: Verdict = key(VERDICT, "To one that the VM begins.", default=Verdict.ALLOW, also=("out", "outbound"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec(Record):
    """A rule of a security group. The order of rules means nothing: where one that drops matches, it wins."""

    WHAT: ClassVar[str] = "a rule"

    name: str = key(
        NAME_KIND, "Its name in the group. Plans and traces call it so.", also=("id", "description", "comment")
    )
    direction: Direction = key(
        choice(
            "a direction",
            Direction,
            dict.fromkeys(("in", "inbound", "input", "incoming", "to", "receive"), "did you mean 'ingress'?")
            | dict.fromkeys(("out", "outbound", "output", "outgoing", "from", "send"), "did you mean 'egress'?"),
        ),
        "As the VM sees it: what it receives (ingress), or what it sends (egress). Replies pass with what they answer.",
    )
    protocol: Protocol | int | None = key(
        RuleProtocol(),
        "Left out: any. `icmp` is ICMPv6 where packets are IPv6.",
        default=None,
        also=("proto", "ip-protocol"),
    )
    ports: tuple[PortRange, ...] = key(
        Ports(),
        "With `protocol: tcp` or `udp`: ports of the side that answers. Left out: all.",
        default=(),
        also=("port", "dport", "dst-port", "destination-port", "port-range", "to-port", "dports"),
    )
    remote: str = key(
        REMOTE,
        "The other side: anybody, those with an address in a range, or the members of a group on the same network.",
        default=ANY,
        also=(
            *("cidr", "source", "destination", "src", "dst", "from", "to", "peer", "address", "remote-ip"),
            *("remote-group", "group", "security-group", "remote-ip-prefix", "remote-cidr"),
        ),
    )
    action: Verdict = key(VERDICT, "What to do with it.", default=Verdict.ALLOW, also=("verdict", "target", "effect"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec(Record):
    """Rules that the VIFs in it obey. They are stateful: replies to what they allow pass."""

    WHAT: ClassVar[str] = "a security group"

    default: GroupDefaults = key(
        RecordOf(GroupDefaults),
        "What happens where no rule matches.",
        default=GroupDefaults(),
        also=("defaults", "policy"),
    )
    rules: tuple[RuleSpec, ...] = key(
        ListOf(RecordOf(RuleSpec), "a list of rules", unique=False, most=MAX_RULES),
        "Its rules, in any order.",
        default=(),
        also=("rule",),
    )

    def remotes(self) -> frozenset[str]:
        """The groups that its rules name."""
        return frozenset(rule.remote for rule in self.rules if is_group(rule.remote))


def is_group(remote: str) -> bool:
    """Whether the other side of a rule is a security group."""
    return remote != ANY and "/" not in remote


@dataclass(frozen=True, slots=True, kw_only=True)
class VifSpec(Record):
    """A VM's interface on a network."""

    WHAT: ClassVar[str] = "a VIF"

    network: str = key(NETWORK_REF, "The network it is on.")
    id: str | None = key(
        VIF_ID_KIND,
        "What the OVS port says in `external_ids:iface-id`. Left out: VM/INDEX, as web1/0.",
        default=None,
    )
    mac: str | None = key(
        MAC_KIND, "Its MAC address. Left out, one is allocated and kept.", default=None, also=("mac-address", "hwaddr")
    )
    addresses: tuple[str, ...] | None = key(
        ListOf(ADDRESS, "a list of addresses"),
        "Its IP addresses. Left out, one is taken from the network's subnets, per address family, and kept; `[]` is none.",
        default=None,
        also=("address", "ip", "ips", "fixed-ips"),
    )
    locking_mode: LockingMode | None = key(LOCKING_MODE, "Instead of `defaults.vif.locking-mode`.", default=None)
    trunk: tuple[int, ...] | None = key(
        Trunk(),
        "The VLAN tags it carries besides untagged frames, on an untagged VLAN network: a list, or `all`.",
        default=None,
        also=("trunks", "tags", "vlans"),
    )
    security_groups: tuple[str, ...] = key(
        ListOf(GROUP_NAME, "a list of security groups", most=MAX_GROUPS_OF_VIF),
        "The security groups whose rules it obeys, all of them together. In none, it is not filtered. A trunk VIF is in none.",
        default=(),
        also=("security-group", "groups", "group", "sg", "sgs", "firewall"),
    )
    qos: None = key(NotYet("rates come with QoS"), "Its rates.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec(Record):
    """A virtual machine: VIFs that move as one."""

    WHAT: ClassVar[str] = "a VM"

    host: str | None = key(
        HOST_REF, "Where a lab starts it. In production the toolstack decides.", default=None, also=("on",)
    )
    vifs: tuple[VifSpec, ...] = key(
        ListOf(RecordOf(VifSpec), "a list of VIFs", unique=False, most=MAX_VIFS_OF_VM),
        "Its interfaces, in order: the first is VM/0.",
        default=(),
        also=("interfaces", "nics", "vif", "ports"),
    )

    def vif_ids(self, name: str) -> Iterator[tuple[int, str, VifSpec]]:
        """Index, id and VIF of each of its interfaces."""
        return ((index, vif.id or f"{name}/{index}", vif) for index, vif in enumerate(self.vifs))


def _api_version(text: str) -> str:
    if text != API_VERSION:
        raise Refused("wrong-version", f"this program reads apiVersion {API_VERSION}, found '{clip(text)}'")
    return text


ENDPOINT: Scalar[str] = text_kind("a VIF (VM/INDEX), a VM, a network, a security group, or 'outside'", 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation(Record):
    """Who should reach whom, or not. Checked on the twin and in the lab."""

    WHAT: ClassVar[str] = "an expectation"

    from_: str = key(
        ENDPOINT,
        "Who sends: a VIF as VM/INDEX, a VM, a network, a security group, or `outside`.",
        also=("source", "src"),
    )
    to: str = key(ENDPOINT, "Who should get it, said the same way.", also=("destination", "dest", "dst"))
    expect: Reach = key(
        choice("an expectation", Reach, {"true": "'reachable'", "false": "'unreachable'"}),
        "What should be.",
    )
    name: str | None = key(text_kind("a name", 200), "What it is about, for the report.", default=None)
    protocol: Protocol | None = key(
        choice("a protocol", Protocol), "Left out: an ICMP echo request (a ping).", default=None, also=("proto",)
    )
    port: int | None = key(
        Integer("a port, 1..65535", 1, 65535), "The destination port; with `protocol: tcp` or `udp`.", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Record):
    """A whole document: valid in itself, its references resolved, its addresses and tags free of clashes."""

    WHAT: ClassVar[str] = "a document"

    api_version: str = key(
        Scalar(f"{API_VERSION}", {"const": API_VERSION}, _api_version),
        f"The grammar: {API_VERSION}.",
        name="apiVersion",
    )
    pool: str = key(NAME_KIND, "The pool's name. A document is never applied to a pool of another name.")
    defaults: Defaults = key(RecordOf(Defaults), "What objects have that do not say otherwise.", default=Defaults())
    hosts: Mapping[str, HostSpec] = key(
        MapOf(NAME_KIND, RecordOf(HostSpec), "a map of hosts"),
        "The pool's hosts, by name.",
        default={},
        also=("nodes",),
    )
    underlay: Underlay = key(RecordOf(Underlay), "The physical network between the hosts.", default=Underlay())
    networks: Mapping[str, NetworkSpec] = key(
        MapOf(NAME_KIND, RecordOf(NetworkSpec), "a map of networks"), "Layer 2 networks, by name.", default={}
    )
    subnets: Mapping[str, SubnetSpec] = key(
        MapOf(NAME_KIND, RecordOf(SubnetSpec), "a map of subnets"), "Address ranges, by name.", default={}
    )
    security_groups: Mapping[str, GroupSpec] = key(
        MapOf(GROUP_NAME, RecordOf(GroupSpec), "a map of security groups"),
        "Rules of who may talk to whom, by name.",
        default={},
        also=("groups", "security-group", "policies", "firewall", "acls"),
    )
    qos: None = key(NotYet("rates come with QoS"), "Classes of rates for VIFs.", default=None)
    vms: Mapping[str, VmSpec] = key(
        MapOf(NAME_KIND, RecordOf(VmSpec), "a map of VMs"),
        "Virtual machines, by name.",
        default={},
        also=("instances",),
    )
    expectations: tuple[Expectation, ...] = key(
        ListOf(RecordOf(Expectation), "a list of expectations", unique=False),
        "Who should reach whom, or not.",
        default=(),
        also=("tests", "expect"),
    )
    source: Source | None = field(default=None, compare=False, repr=False)

    def endpoint(self, word: str) -> tuple[str, ...]:
        """The VIF ids that an end of an expectation stands for: a VIF, a VM's, a network's, a group's; none for `outside`."""
        if word in self.vms:
            return tuple(vif_id for _, vif_id, _ in self.vms[word].vif_ids(word))
        all_vifs = [(vif_id, f"{n}/{i}", vif) for n, vm in self.vms.items() for i, vif_id, vif in vm.vif_ids(n)]
        if word in self.networks:
            return tuple(vif_id for vif_id, _, vif in all_vifs if vif.network == word)
        if word in self.security_groups:
            return tuple(vif_id for vif_id, _, vif in all_vifs if word in vif.security_groups)
        return tuple(vif_id for vif_id, position, _ in all_vifs if word in (vif_id, position))

    def problem(self, code: str, message: str, place: Place | None = None, hint: str = "") -> Problem:
        """A problem of this document, with the line's text where there is one."""
        if self.source is not None:
            return self.source.problem(code, message, place, hint)
        return Problem(code, message, hint)
