"""The bodies and answers of the controller's API, as types: the server, the clients and OpenAPI share them.

One rule: words and values are those of the document, spelled with underscores. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from msgspec import field as field_of

from vnet.util.suggest import plural

MAX_BODY_BYTES = 16 * 1024 * 1024
Phase = Literal["none", "preparing", "prepared", "receiving", "active"]


class CallStruct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a call that makes no object."""


class AnswerStruct(msgspec.Struct, frozen=True, kw_only=True):
    """Answers may grow: a client ignores fields that it does not know."""


class ObjectStruct(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of a call that makes or changes an object. A field that keeps its default is not sent."""


# --- in every answer ------------------------------------------------------------------------------


class Problem(AnswerStruct, frozen=True, kw_only=True):
    """The refusal of a call; nothing has changed. code: for programs. where: the field, the object or the host at fault."""

    code: str
    message: str
    where: str = ""
    problems: list[InputProblem] = []


class InputProblem(AnswerStruct, frozen=True, kw_only=True):
    """An error in a document or a body. path: the field of a body. Lines and columns count from 1; null without a line at fault."""

    code: str
    message: str
    hint: str = ""
    path: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None
    length: int | None = None
    text: str = ""


class Reason(AnswerStruct, frozen=True, kw_only=True):
    """A reason why an object is not as desired."""

    code: str
    text: str
    host: str = ""


class Place(AnswerStruct, frozen=True, kw_only=True):
    """The state and the host of a VIF: `defined` (no host has it), `awaited` (a host has a number for its port, which is not there), `claimed` (a
    host has its port), `ready` (packets reach it). ofport: what its port there is to ask for as its ofport_request.
    link_locals: the link-local addresses that its guest has chosen, the oldest first. connections: what became of its tracked connections when it
    came to the host by a migration. picks_up: whether that host picks up its TCP connections as they go on, since it has not seen them begin: for 300 s
    at most. masters: the virtual routers of which it is the master, by its advertisements of the last seconds."""

    state: Literal["defined", "awaited", "claimed", "ready"]
    host: str | None = None
    since: str | None = None
    why: list[Reason] = []
    ofport: int | None = None
    link_locals: list[str] = []
    connections: str = ""
    picks_up: bool = False
    masters: list[int] = []


class Migration(AnswerStruct, frozen=True, kw_only=True):
    """The progress of a migration. waiting: its unmet conditions. not_waited: dead hosts, for which it does not wait."""

    phase: Phase
    source: str | None = None
    destination: str | None = None
    waiting: list[str] = []
    not_waited: list[str] = []


# --- objects --------------------------------------------------------------------------------------


class Pool(AnswerStruct, frozen=True, kw_only=True):
    name: str
    underlay_mtu: int
    locking_mode: str
    revision: int
    generation: int
    encryption: str | None = None
    key_epoch: int = 0
    id: str = ""


class Agent(AnswerStruct, frozen=True, kw_only=True):
    """The last report of a host's agent. behind: the number of generations that it has not acknowledged yet. elsewhere: the machine that it runs on, if
    that is not the host."""

    alive: bool
    generation: int = 0
    behind: int = 0
    started: str | None = None
    version: str = ""
    ovs_version: str = ""
    problems: dict[str, str] = {}
    elsewhere: str = ""


class LinkNeighbour(AnswerStruct, frozen=True, kw_only=True):
    """A station at the other end of the cable of a host's NIC, as it says by LLDP (802.1AB). place: its switch and port in short. The rest as it says it: its chassis, port and system, the address by which it is managed, and the VLAN of untagged frames
    there, null where it says none. ttl_s: how long that holds, in seconds."""

    host: str
    uplink: str
    nic: str
    place: str
    chassis: str
    port: str
    port_description: str
    system: str
    address: str
    vlan: int | None
    ttl_s: int


class ListFilter(msgspec.Struct, frozen=True):
    """A parameter of a list. refers: the noun whose name it takes; labels: it takes labels; else it takes one of `choices`."""

    name: str
    doc: str
    refers: str = ""
    choices: tuple[str, ...] = ()
    labels: bool = False

    @property
    def metavar(self) -> str | None:
        """The value, as help has it; None where it is one of `choices`."""
        return None if self.choices else "KEY=VALUE" if self.labels else "NAME"


class Resource(msgspec.Struct, frozen=True):
    """The words and the types of a noun's calls. new: the body of a POST, None where the caller always names the object.

    references: the nouns that its objects name, by which its list is filtered. labelled: whether they have labels.
    """

    word: str
    plural: str
    text: str
    key: str
    answer: Any
    spec: Any
    change: Any
    new: Any = None
    references: tuple[str, ...] = ()
    labelled: bool = False

    @property
    def filters(self) -> tuple[ListFilter, ...]:
        """The parameters of its list."""
        texts = plural(self.text)
        named = (ListFilter(it, f"Only {texts} that name this {RESOURCES[it].text}.", it) for it in self.references)
        label = ListFilter(
            "label", f"Only {texts} with this label, or with all of several: app=shop,tier=web.", labels=True
        )
        return (*ANSWER_FILTERS.get(self.word, ()), *named, *((label,) if self.labelled else ()))


# Filters by what an answer shows.
ANSWER_FILTERS = {
    "vif": (
        ListFilter("host", "Only on this host, or wanted there and on no host.", "host"),
        ListFilter("state", "Only in this state.", choices=("defined", "awaited", "claimed", "ready")),
    ),
}

# --- generated: begin


class Uplink(ObjectStruct, frozen=True, kw_only=True):
    """A host's way to the physical network: a NIC, several as a bond, or a bridge that has them. Its name is the same on every host."""

    name: str
    members: list[str] = []
    mode: Literal["active-backup", "balance-slb", "lacp"] | None = None
    lacp_time: Literal["slow", "fast"] = "slow"
    hash: Literal["source-mac", "tcpudp-ports"] = "source-mac"
    mtu: int | None = None
    bridge: str | None = None
    lldp: Literal["off", "send"] | None = None


class Host(AnswerStruct, frozen=True, kw_only=True):
    """A virtualization host."""

    name: str
    address: str | None
    uplinks: list[Uplink]
    owner: str
    agent: Agent
    vifs: int = 0
    neighbours: list[LinkNeighbour] = []


class HostSpec(ObjectStruct, frozen=True, kw_only=True):
    """A host as a toolstack makes it. None leaves a field out."""

    address: str | None = None
    uplinks: list[Uplink] | None = None


class HostChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a host that change; the others stay as they are. None gives a field its default."""

    address: str | UnsetType | None = UNSET
    uplinks: list[Uplink] | UnsetType | None = UNSET


class QosClass(AnswerStruct, frozen=True, kw_only=True):
    """Rate limits: of each VIF that names it, or with `aggregate` of all VIFs together of a network that names it."""

    name: str
    from_vm: str | None
    to_vm: str | None
    burst: str | None
    packets: str | None
    broadcast: str | None
    multicast: str | None
    unknown: str | None
    dscp: int | None
    aggregate: bool
    owner: str


class QosClassSpec(ObjectStruct, frozen=True, kw_only=True):
    """A QoS class as a toolstack makes it. None leaves a field out."""

    from_vm: str | None = None
    to_vm: str | None = None
    burst: str | None = None
    packets: str | None = None
    broadcast: str | None = None
    multicast: str | None = None
    unknown: str | None = None
    dscp: int | None = None
    aggregate: bool | None = None


class QosClassChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a QoS class that change; the others stay as they are. None gives a field its default."""

    from_vm: str | UnsetType | None = UNSET
    to_vm: str | UnsetType | None = UNSET
    burst: str | UnsetType | None = UNSET
    packets: str | UnsetType | None = UNSET
    broadcast: str | UnsetType | None = UNSET
    multicast: str | UnsetType | None = UNSET
    unknown: str | UnsetType | None = UNSET
    dscp: int | UnsetType | None = UNSET
    aggregate: bool | UnsetType | None = UNSET


class Network(AnswerStruct, frozen=True, kw_only=True):
    """A layer 2 network."""

    name: str
    type: str
    number: int
    mtu: int
    vni: int | None
    key: int | None
    tag: int | Literal["untagged"] | None
    uplink: str | None
    hosts: list[str]
    qos: str | None
    vif_qos: str | None
    isolation: str | None
    encryption: str | None
    tpid: str | None
    multicast_snooping: bool
    query_interval: int | None
    querier: str | None
    owner: str
    security_groups: list[str]
    labels: dict[str, str]
    vifs: int = 0


class NetworkSpec(ObjectStruct, frozen=True, kw_only=True):
    """A network as a toolstack makes it. None leaves a field out."""

    type: Literal["internal", "vlan", "vxlan", "gre", "geneve"]
    mtu: int | None = None
    vni: int | None = None
    key: int | None = None
    tag: int | Literal["untagged"] | None = None
    uplink: str | None = None
    hosts: list[str] | None = None
    qos: str | None = None
    vif_qos: str | None = None
    isolation: str | None = None
    encryption: Literal["required"] | None = None
    tpid: Literal["0x8100", "0x88a8"] | None = None
    multicast_snooping: bool | None = None
    query_interval: int | None = None
    querier: str | None = None
    security_groups: list[str] | None = None
    labels: dict[str, str] | None = None


class NetworkChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a network that change; the others stay as they are. None gives a field its default."""

    type: Literal["internal", "vlan", "vxlan", "gre", "geneve"] | UnsetType = UNSET
    mtu: int | UnsetType = UNSET
    vni: int | UnsetType = UNSET
    key: int | UnsetType = UNSET
    tag: int | Literal["untagged"] | UnsetType | None = UNSET
    uplink: str | UnsetType | None = UNSET
    hosts: list[str] | UnsetType | None = UNSET
    qos: str | UnsetType | None = UNSET
    vif_qos: str | UnsetType | None = UNSET
    isolation: str | UnsetType | None = UNSET
    encryption: Literal["required"] | UnsetType = UNSET
    tpid: Literal["0x8100", "0x88a8"] | UnsetType | None = UNSET
    multicast_snooping: bool | UnsetType | None = UNSET
    query_interval: int | UnsetType | None = UNSET
    querier: str | UnsetType | None = UNSET
    security_groups: list[str] | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType | None = UNSET


class PlugBridge(AnswerStruct, frozen=True, kw_only=True):
    """A bridge of each host into which a toolstack plugs the VIFs of a network."""

    name: str
    network: str
    taken_over: bool
    hosts: list[str]
    title: str | None
    owner: str


class PlugBridgeSpec(ObjectStruct, frozen=True, kw_only=True):
    """A plug bridge as a toolstack makes it. None leaves a field out."""

    network: str
    taken_over: bool | None = None
    hosts: list[str] | None = None
    title: str | None = None


class PlugBridgeChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a plug bridge that change; the others stay as they are. None gives a field its default."""

    network: str | UnsetType = UNSET
    taken_over: bool | UnsetType | None = UNSET
    hosts: list[str] | UnsetType | None = UNSET
    title: str | UnsetType | None = UNSET


class FlowCollector(AnswerStruct, frozen=True, kw_only=True):
    """A collector that every host tells of the frames on its br-int, or of those of the VIFs that it is of."""

    name: str
    protocol: str
    to: str
    sample: int | None
    of: list[str]
    owner: str


class FlowCollectorSpec(ObjectStruct, frozen=True, kw_only=True):
    """A flow collector as a toolstack makes it. None leaves a field out."""

    protocol: Literal["ipfix", "netflow", "sflow"]
    to: str
    sample: int | None = None
    of: list[str] | None = None


class FlowCollectorChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a flow collector that change; the others stay as they are. None gives a field its default."""

    protocol: Literal["ipfix", "netflow", "sflow"] | UnsetType = UNSET
    to: str | UnsetType = UNSET
    sample: int | UnsetType | None = UNSET
    of: list[str] | UnsetType | None = UNSET


class Subnet(AnswerStruct, frozen=True, kw_only=True):
    """A range of addresses on a network; VIFs that leave theirs out get one from it."""

    name: str
    network: str
    cidr: str
    gateway: str | None
    owner: str


class SubnetSpec(ObjectStruct, frozen=True, kw_only=True):
    """A subnet as a toolstack makes it. None leaves a field out."""

    network: str
    cidr: str
    gateway: str | None = None


class SubnetChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a subnet that change; the others stay as they are. None gives a field its default."""

    network: str | UnsetType = UNSET
    cidr: str | UnsetType = UNSET
    gateway: str | UnsetType | None = UNSET


class AddressSet(AnswerStruct, frozen=True, kw_only=True):
    """Ranges of addresses, of both IP versions."""

    name: str
    addresses: list[str]
    owner: str


class AddressSetSpec(ObjectStruct, frozen=True, kw_only=True):
    """An address set as a toolstack makes it. None leaves a field out."""

    addresses: list[str] | None = None


class AddressSetChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of an address set that change; the others stay as they are. None gives a field its default."""

    addresses: list[str] | UnsetType | None = UNSET


class Rule(ObjectStruct, frozen=True, kw_only=True):
    """A rule of a security group. The order of rules means nothing: one that drops wins over one that rejects, that over one that allows."""

    name: str
    direction: Literal["ingress", "egress"]
    action: Literal["allow", "drop", "reject"] = "allow"
    protocol: Literal["tcp", "udp", "icmp", "igmp", "gre", "esp", "ah", "ospf", "vrrp", "sctp"] | int | None = None
    ports: list[int | str] = []
    remote: str | list[str] = "any"
    icmp: list[
        Literal[
            "echo-request",
            "timestamp-request",
            "echo-reply",
            "timestamp-reply",
            "destination-unreachable",
            "packet-too-big",
            "time-exceeded",
            "parameter-problem",
        ]
    ] = []
    log: bool = False
    source_ports: list[int | str] = []
    mandatory: bool = False


class SecurityGroup(AnswerStruct, frozen=True, kw_only=True):
    """Rules that the VIFs in it obey. Unless the group is stateless, replies to what they allow pass."""

    name: str
    number: int
    ingress: str
    egress: str
    rules: list[Rule]
    owner: str
    mode: str
    stateful: bool
    tier: str
    selector: dict[str, str]
    network_ranges: list[str]
    address_sets: list[str]
    vifs: int = 0


class SecurityGroupSpec(ObjectStruct, frozen=True, kw_only=True):
    """A security group as a toolstack makes it. None leaves a field out."""

    ingress: Literal["allow", "drop", "reject"] | None = None
    egress: Literal["allow", "drop", "reject"] | None = None
    rules: list[Rule] | None = None
    mode: Literal["enforce", "monitor"] | None = None
    stateful: bool | None = None
    tier: Literal["pool", "network", "vm", "vif"] | None = None
    selector: dict[str, str] | None = None


class SecurityGroupChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a security group that change; the others stay as they are. None gives a field its default."""

    ingress: Literal["allow", "drop", "reject"] | UnsetType | None = UNSET
    egress: Literal["allow", "drop", "reject"] | UnsetType | None = UNSET
    rules: list[Rule] | UnsetType | None = UNSET
    mode: Literal["enforce", "monitor"] | UnsetType | None = UNSET
    stateful: bool | UnsetType | None = UNSET
    tier: Literal["pool", "network", "vm", "vif"] | UnsetType | None = UNSET
    selector: dict[str, str] | UnsetType | None = UNSET


class Vm(AnswerStruct, frozen=True, kw_only=True):
    """A virtual machine: VIFs that move as one."""

    name: str
    host: str | None
    title: str | None
    origin: str | None
    owner: str
    security_groups: list[str]
    labels: dict[str, str]
    vifs: list[Vif] = []
    migration: Migration


class VmSpec(ObjectStruct, frozen=True, kw_only=True):
    """A VM as a toolstack makes it. None leaves a field out."""

    host: str | None = None
    title: str | None = None
    origin: str | None = None
    security_groups: list[str] | None = None
    labels: dict[str, str] | None = None


class VmChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a VM that change; the others stay as they are. None gives a field its default."""

    host: str | UnsetType | None = UNSET
    title: str | UnsetType | None = UNSET
    origin: str | UnsetType | None = UNSET
    security_groups: list[str] | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType | None = UNSET


class Identity(ObjectStruct, frozen=True, kw_only=True):
    """A MAC that a VIF may have besides its own, with the addresses that go with it."""

    mac: str
    addresses: list[str] = []


class Vif(AnswerStruct, frozen=True, kw_only=True):
    """A VM's interface on a network, wherever the VM runs."""

    id: str
    network: str
    mac: str
    vm: str | None
    index: int
    addresses: list[str]
    locking_mode: str
    router: bool
    dhcp_server: bool
    trunk: list[int] | Literal["all"] | None
    host: str | None
    incoming: str | None
    epoch: int
    stays: str
    owner: str
    security_groups: list[str]
    qos: str | None
    also: list[Identity]
    vrrp: list[int]
    isolation: str | None
    awaited: bool
    learn: int
    labels: dict[str, str]
    vm_labels: dict[str, str]
    vm_groups: list[str]
    former_network: str | None
    former_addresses: list[str]
    place: Place
    migration: Migration | None = None


class VifSpec(ObjectStruct, frozen=True, kw_only=True):
    """A VIF as a toolstack makes it. None leaves a field out."""

    network: str
    mac: str | None = None
    vm: str | None = None
    index: int | None = None
    addresses: list[str] | None = None
    locking_mode: Literal["locked", "unlocked", "disabled"] | None = None
    router: bool | None = None
    dhcp_server: bool | None = None
    trunk: list[int] | Literal["all"] | None = None
    host: str | None = None
    security_groups: list[str] | None = None
    qos: str | None = None
    also: list[Identity] | None = None
    vrrp: list[int] | None = None
    isolation: str | None = None
    awaited: bool | None = None
    learn: int | None = None
    labels: dict[str, str] | None = None


class NewVif(VifSpec, frozen=True, kw_only=True):
    """A VIF whose id is in the body; left out, it follows from the other fields."""

    id: str | None = None


class VifChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a VIF that change; the others stay as they are. None gives a field its default."""

    network: str | UnsetType = UNSET
    mac: str | UnsetType = UNSET
    vm: str | UnsetType | None = UNSET
    index: int | UnsetType = UNSET
    addresses: list[str] | UnsetType = UNSET
    locking_mode: Literal["locked", "unlocked", "disabled"] | UnsetType = UNSET
    router: bool | UnsetType | None = UNSET
    dhcp_server: bool | UnsetType | None = UNSET
    trunk: list[int] | Literal["all"] | UnsetType | None = UNSET
    host: str | UnsetType | None = UNSET
    security_groups: list[str] | UnsetType | None = UNSET
    qos: str | UnsetType | None = UNSET
    also: list[Identity] | UnsetType | None = UNSET
    vrrp: list[int] | UnsetType | None = UNSET
    isolation: str | UnsetType | None = UNSET
    awaited: bool | UnsetType | None = UNSET
    learn: int | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType | None = UNSET


class FrameMirror(AnswerStruct, frozen=True, kw_only=True):
    """Copies of frames of VIFs, wherever they run."""

    name: str
    from_: list[str] = field_of(name="from")
    to: str
    key: int
    direction: str
    filter: str | None
    policy: str
    expires: str | None
    owner: str


class FrameMirrorSpec(ObjectStruct, frozen=True, kw_only=True):
    """A mirror as a toolstack makes it. None leaves a field out."""

    from_: list[str] = field_of(name="from")
    to: str
    direction: Literal["both", "from-vm", "to-vm"] | None = None
    filter: str | None = None
    policy: Literal["before", "after"] | None = None
    expires: str | None = None


class FrameMirrorChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of a mirror that change; the others stay as they are. None gives a field its default."""

    from_: list[str] | UnsetType = field_of(name="from", default=UNSET)
    to: str | UnsetType = UNSET
    direction: Literal["both", "from-vm", "to-vm"] | UnsetType | None = UNSET
    filter: str | UnsetType | None = UNSET
    policy: Literal["before", "after"] | UnsetType | None = UNSET
    expires: str | UnsetType | None = UNSET


class Expectation(AnswerStruct, frozen=True, kw_only=True):
    """A statement that some reach others, or do not. Checked on the twin and in the lab."""

    name: str
    from_: str = field_of(name="from")
    to: str
    expect: str
    protocol: str | None
    port: int | None
    owner: str


class ExpectationSpec(ObjectStruct, frozen=True, kw_only=True):
    """An expectation as a toolstack makes it. None leaves a field out."""

    from_: str = field_of(name="from")
    to: str
    expect: Literal["reachable", "unreachable"]
    protocol: Literal["tcp", "udp", "icmp"] | None = None
    port: int | None = None


class NewExpectation(ExpectationSpec, frozen=True, kw_only=True):
    """An expectation whose name is in the body; left out, it follows from the other fields."""

    name: str | None = None


class ExpectationChange(ObjectStruct, frozen=True, kw_only=True):
    """The fields of an expectation that change; the others stay as they are. None gives a field its default."""

    from_: str | UnsetType = field_of(name="from", default=UNSET)
    to: str | UnsetType = UNSET
    expect: Literal["reachable", "unreachable"] | UnsetType = UNSET
    protocol: Literal["tcp", "udp", "icmp"] | UnsetType | None = UNSET
    port: int | UnsetType | None = UNSET


RESOURCES = {
    "host": Resource("host", "hosts", "host", "name", Host, HostSpec, HostChange),
    "qos-class": Resource("qos-class", "qos", "QoS class", "name", QosClass, QosClassSpec, QosClassChange),
    "network": Resource(
        "network",
        "networks",
        "network",
        "name",
        Network,
        NetworkSpec,
        NetworkChange,
        references=("host", "qos-class", "security-group"),
        labelled=True,
    ),
    "plug-bridge": Resource(
        "plug-bridge",
        "plug-bridges",
        "plug bridge",
        "name",
        PlugBridge,
        PlugBridgeSpec,
        PlugBridgeChange,
        references=("network", "host"),
    ),
    "flow-collector": Resource(
        "flow-collector", "flow-export", "flow collector", "name", FlowCollector, FlowCollectorSpec, FlowCollectorChange
    ),
    "subnet": Resource(
        "subnet", "subnets", "subnet", "name", Subnet, SubnetSpec, SubnetChange, references=("network",)
    ),
    "address-set": Resource(
        "address-set", "address-sets", "address set", "name", AddressSet, AddressSetSpec, AddressSetChange
    ),
    "security-group": Resource(
        "security-group",
        "security-groups",
        "security group",
        "name",
        SecurityGroup,
        SecurityGroupSpec,
        SecurityGroupChange,
    ),
    "vm": Resource(
        "vm", "vms", "VM", "name", Vm, VmSpec, VmChange, references=("host", "security-group"), labelled=True
    ),
    "vif": Resource(
        "vif",
        "vifs",
        "VIF",
        "id",
        Vif,
        VifSpec,
        VifChange,
        new=NewVif,
        references=("network", "vm", "security-group", "qos-class"),
        labelled=True,
    ),
    "mirror": Resource("mirror", "mirrors", "mirror", "name", FrameMirror, FrameMirrorSpec, FrameMirrorChange),
    "expectation": Resource(
        "expectation",
        "expectations",
        "expectation",
        "name",
        Expectation,
        ExpectationSpec,
        ExpectationChange,
        new=NewExpectation,
    ),
}
# --- generated: end


class Binding(AnswerStruct, frozen=True, kw_only=True):
    vif: str
    host: str
    network: str
    mac: str
    addresses: list[str]
    epoch: int
    state: str
    ready: bool
    acked: list[str]
    since: str | None
    security_groups: list[str] = []
    moved: bool = False
    connections: str = ""
    ofport: int | None = None
    link_locals: list[str] = []
    behind: list[str] = []
    listening: list[str] = []


class Event(AnswerStruct, frozen=True, kw_only=True):
    """id: give it as Last-Event-ID to go on after it."""

    id: str
    time: str
    kind: str
    text: str
    host: str = ""
    network: str = ""
    vif: str = ""


# --- calls ----------------------------------------------------------------------------------------


class Unit(msgspec.Struct, frozen=True):
    """The VIFs that move as one: all VIFs of a VM, or a single VIF. plural: as in the API's paths."""

    plural: str
    id: str

    @classmethod
    def of_vm(cls, name: str) -> Unit:
        return cls("vms", name)

    @classmethod
    def of_vif(cls, id: str) -> Unit:
        return cls("vifs", id)

    def __str__(self) -> str:
        return f"{'VM' if self.plural == 'vms' else 'VIF'} {self.id}"


class PlugCall(CallStruct, frozen=True, kw_only=True):
    """host: where it is to run. wait_s: how long to wait for it to be ready.

    awaited: have all hosts programmed before its port is there, and wait only until its host has a number for the port, which
    `place` then says in `ofport`; hosts' flows follow at once, and are not waited for. It stays so, also while the port is away,
    until `unplug`.
    """

    host: str
    wait_s: float = 0.0
    awaited: bool = False


class PrepareCall(CallStruct, frozen=True, kw_only=True):
    """force: also to a host whose agent does not report."""

    to: str
    force: bool = False


class StepCall(CallStruct, frozen=True, kw_only=True):
    """force: see each call."""

    force: bool = False


class MigrateCall(CallStruct, frozen=True, kw_only=True):
    """The whole way: prepare, wait until prepared, wait for the guest's announcement (or activate), finish.

    activate: the controller says when, instead of the guest's own announcement. timeout_s: give up waiting after this long,
    leaving things as they are; call again to go on, or abort.
    """

    to: str
    activate: bool = False
    timeout_s: float = 60.0


class InviteCall(CallStruct, frozen=True, kw_only=True):
    """url, pool: where the host reaches the REST API and the pool database, if not as the controller's options say. minutes: how long it is valid."""

    url: str | None = None
    pool: list[str] = []
    minutes: float = 60.0


class Invitation(AnswerStruct, frozen=True, kw_only=True):
    """A secret, shown once: the word that 'vnet host join' reads on the host."""

    word: str
    ends: str


class JoinCall(CallStruct, frozen=True, kw_only=True):
    """A host's request to certify its key, in PEM, and the token of its invitation."""

    host: str
    token: str
    request: str


class Revoked(AnswerStruct, frozen=True, kw_only=True):
    """ends: when the certificate that the host has lets it in no more."""

    ends: str


class HostCertificate(AnswerStruct, frozen=True, kw_only=True):
    """In PEM."""

    certificate: str


class EvacuateCall(CallStruct, frozen=True, kw_only=True):
    to: str | None = None
    activate: bool = False
    timeout_s: float = 600.0


class Evacuation(AnswerStruct, frozen=True, kw_only=True):
    """The new host of each VM, and of each VIF without a VM."""

    moved: dict[str, str]


class Progress(AnswerStruct, frozen=True, kw_only=True):
    """One line of a long call's progress. The last one is `done` or `failed`, and alone has a result: the call's answer."""

    kind: Literal["progress", "done", "failed"]
    text: str
    problem: Problem | None = None
    result: Any = None


# --- the pool as a whole --------------------------------------------------------------------------


class FieldChange(AnswerStruct, frozen=True, kw_only=True):
    old: Any = None
    new: Any = None


class Change(AnswerStruct, frozen=True, kw_only=True):
    """An object that comes, changes or goes, with the reason and the disruption."""

    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    reason: str
    disruption: str
    fields: dict[str, FieldChange] = {}


class Expected(AnswerStruct, frozen=True, kw_only=True):
    """An expectation of the document: whether it would hold after the plan, and whether it holds now. trace: of the packet that fails. asked: false where each of its
    pairs has an end on a host that is down."""

    name: str
    holds: bool
    held: bool
    where: str = ""
    why: str = ""
    trace: str = ""
    asked: bool = True


class Difference(AnswerStruct, frozen=True, kw_only=True):
    """Pairs that gain or lose a way: every one of `sources` to every one of `targets`.

    what: "ping", "tcp" or "udp" on any port, or with ranges of ports, as "tcp 80, 443-445".
    """

    gained: bool
    sources: list[str]
    targets: list[str]
    what: list[str]
    text: str


class Plan(AnswerStruct, frozen=True, kw_only=True):
    """The changes that a call would make, or has made. revision: of the pool before them. text: the same for people.

    reachability: the pairs of VIFs that gain or lose a way to each other; None where that was not asked. id: of the plan of a document or an object, shared with none
    that makes other changes, or another pool's; empty for others.
    """

    revision: int
    disruption: str
    changes: list[Change]
    text: str = ""
    expectations: list[Expected] = []
    reachability: list[Difference] | None = None
    id: str = ""


class Applied(AnswerStruct, frozen=True, kw_only=True):
    """The result of an apply. acknowledged, waiting, dead: the hosts that have followed, have not yet, and do not report.

    problems: those of hosts that have followed as far as they could. trial: where it is taken back unless it is confirmed.
    """

    plan: Plan
    revision: int
    generation: int
    acknowledged: list[str] = []
    waiting: list[str] = []
    dead: list[str] = []
    problems: list[Reason] = []
    trial: Trial | None = None


class Trial(AnswerStruct, frozen=True, kw_only=True):
    """A revision on trial. ends: when it is taken back; seconds: till then. caller, source, reason: who tries it, from where and why."""

    revision: int
    ends: str
    seconds: int
    caller: str = ""
    source: str = ""
    reason: str = ""


class TunnelCall(CallStruct, frozen=True, kw_only=True):
    """The tunnel that a frame came by: its key, and the addresses of the sending and of the asked host."""

    key: int
    source: str
    target: str


class ProbesCall(CallStruct, frozen=True, kw_only=True):
    """Frames for hosts to trace, at most 128. wait_s: the time for their answers. Nothing is sent."""

    probes: list[ProbeCall]
    wait_s: float = 5.0


class ProbeCall(CallStruct, frozen=True, kw_only=True):
    """A frame for the switch of `host`, to trace and not to send.

    Either vif (its id: the frame comes from it) or device (a port of the integration bridge that is no VIF's). frame: its bytes
    in hexadecimal. tracked: the states that the connection tracker gives it, one per lookup, as "est+rpl+trk"; without
    it "new+trk".
    """

    host: str
    frame: str
    vif: str | None = None
    device: str | None = None
    tunnel: TunnelCall | None = None
    tracked: list[str] = []


class Probe(AnswerStruct, frozen=True, kw_only=True):
    """The trace of a frame by a host's switch, as ofproto/trace prints it. vifs, devices: its ports by their numbers there.

    problem: the reason why there is no answer; else empty.
    """

    host: str
    text: str = ""
    vifs: dict[str, str] = {}
    devices: dict[str, str] = {}
    problem: str = ""


class RuleCount(AnswerStruct, frozen=True, kw_only=True):
    """What a rule has matched, or with an empty name what a default has dropped or rejected."""

    rule: str
    direction: str
    action: str
    tier: str = "vif"
    packets: int = 0
    bytes: int = 0


class GroupCounters(AnswerStruct, frozen=True, kw_only=True):
    """What the rules of a security group have matched since each host has them, summed over `hosts`.

    missing: the hosts with VIFs in the group that are not in the sums, each with the reason.
    """

    security_group: str
    rules: list[RuleCount]
    hosts: list[str]
    missing: dict[str, str] = {}


class MonitoredConnection(AnswerStruct, frozen=True, kw_only=True):
    """Connections of one kind that a group in monitor mode would have forbidden a VIF, of those that hosts have looked at.

    direction: in which they began, from the VIF's side. port: of the side that answers, with ICMP the type of the message. peer: the VIF at the
    other end, its address where that is none, or its MAC without IP. rule: empty for the group's default. last: RFC 3339. answers: packets from that port, of a
    stateless group; their direction is their own.
    """

    vif: str
    direction: str
    protocol: str
    port: int | None
    peer: str
    address: str
    rule: str
    count: int
    last: str
    answers: bool = False


class MonitoredCount(AnswerStruct, frozen=True, kw_only=True):
    """All that a group in monitor mode would have forbidden a VIF: packets that began a connection, and packets of those that ran on."""

    vif: str
    direction: str
    begun: int
    running: int


class Monitored(AnswerStruct, frozen=True, kw_only=True):
    """What a security group in monitor mode would have forbidden, summed over `hosts`, and the rules that would allow it.

    connections: the most frequent first, at most 1,000 kinds. vifs: counted by the switches, since the group is in monitor mode on the host.
    notes: what rules cannot allow. missing: as in GroupCounters.
    """

    security_group: str
    mode: str
    connections: list[MonitoredConnection]
    vifs: list[MonitoredCount]
    suggested: list[Rule]
    notes: list[str]
    hosts: list[str]
    missing: dict[str, str] = {}


class HealthFinding(AnswerStruct, frozen=True, kw_only=True):
    """Something that is wrong with the network between hosts. code: for programs. remedy: what to do. hosts: those that it is about."""

    code: str
    text: str
    remedy: str
    hosts: list[str] = []


class TunnelHealth(AnswerStruct, frozen=True, kw_only=True):
    """The tunnel from a host to another one. via: its encapsulation. passes: whether frames come there, by what that host says; null while nobody knows. mtu: the largest packet inside
    that is known to come there, of those that networks need, in bytes. round_trip_us: the time there and back. ahead_ms: by how much the clock of `to` is ahead."""

    source: str
    to: str
    via: str
    passes: bool | None = None
    mtu: int | None = None
    needs: int | None = None
    round_trip_us: int | None = None
    ahead_ms: int | None = None


class UplinkHealth(AnswerStruct, frozen=True, kw_only=True):
    """An uplink of a host, when hosts last looked at its VLANs. vlans: those that were looked at, 0 for untagged frames, 4096 added for service tags. heard: the hosts that it heard on any of them."""

    host: str
    uplink: str
    links: list[str]
    vlans: list[int]
    heard: list[str]


class Health(AnswerStruct, frozen=True, kw_only=True):
    """The network between the hosts. tunnels: of what was stated without being asked, only those that are not as they should be. hosts: those that looked. missing: those that did
    not answer, with the reason."""

    findings: list[HealthFinding]
    tunnels: list[TunnelHealth] = []
    uplinks: list[UplinkHealth] = []
    neighbours: list[LinkNeighbour] = []
    hosts: list[str] = []
    missing: dict[str, str] = {}


class PacketsCall(CallStruct, frozen=True, kw_only=True):
    """Marked frames to send, at most 256, each in its round. wait_s: the time for hosts to report that they watch."""

    packets: list[PacketCall]
    wait_s: float = 5.0


class CaptureCall(CallStruct, frozen=True, kw_only=True):
    """Frames of VIFs, at most 32, to be sent to the caller as they come. seconds: at most 3,600.

    filter: in the language of pcap-filter(7), all if left out. snap: bytes of each frame. rate: the most frames a second on each host,
    shared equally by the VIFs and directions there; more are dropped and counted.
    """

    vifs: list[str]
    filter: str = ""
    seconds: float = 3600.0
    snap: int = 9238
    rate: int = 1000


class PacketCall(CallStruct, frozen=True, kw_only=True):
    """A marked frame, in hexadecimal, to send as a VIF (its id), from the host where that runs.

    round: frames of lower rounds go before. to: the id of the VIF that it is for. after: the number of the frame that must have
    come to the VIF that it is for; without it this one is not sent. expect: the VIFs to wait for, at most half a second.
    """

    frame: str
    vif: str
    to: str = ""
    round: int = 0
    after: int | None = None
    expect: list[str] = []


class Sighting(AnswerStruct, frozen=True, kw_only=True):
    """A marked frame at a host. where: the port it came in by, or the id of the VIF that would have got it.

    changed: its bytes, in hexadecimal, where they were not as they were sent; else empty.
    """

    host: str
    where: str
    changed: str = ""


class Packet(AnswerStruct, frozen=True, kw_only=True):
    """The fate of a marked frame. came: its arrivals at hosts; caught: the VIFs that would have got it. why: the reason if it was not sent."""

    sent: bool
    why: str = ""
    came: list[Sighting] = []
    caught: list[Sighting] = []


class Packets(AnswerStruct, frozen=True, kw_only=True):
    """The fates of marked frames, in their order. hosts: those that watched. left_off: the number of sightings beyond the limit.

    problems: if nothing was sent, the reason for each host that does not watch.
    """

    packets: list[Packet]
    hosts: list[str]
    problems: list[str] = []
    left_off: int = 0


class Move(AnswerStruct, frozen=True, kw_only=True):
    """A migration that is under way. unit: 'VM web1', or 'VIF web1/0' of a VIF that moves alone."""

    unit: str
    migration: Migration


class Status(AnswerStruct, frozen=True, kw_only=True):
    """The pool at a glance. problems: everything that is not as desired. moving: the migrations that are under way. picking_up: the VIFs whose
    connections did not come along when they moved, or have just become tracked: for 300 s at most they are picked up as they go on. elsewhere: by host whose
    agent runs on another machine, that machine. trial: the
    revision that is on trial. followers: those of toolstacks."""

    pool: Pool | None
    controller: str
    database: list[str]
    hosts: int
    live_hosts: int
    networks: int
    vifs: dict[str, int]
    problems: list[Reason]
    moving: list[Move] = []
    picking_up: list[Reason] = []
    elsewhere: dict[str, str] = {}
    trial: Trial | None = None
    followers: list[ToolstackFollower] = []


class FollowCall(CallStruct, frozen=True, kw_only=True):
    """A follower that asks to be the toolstack's. caller: its name, of no other one. silent_at: the beat at which it has seen the follower stand for long
    enough. ends: it says instead that it has ended."""

    caller: str
    silent_at: int | None = None
    ends: bool = False


class ToolstackFollower(AnswerStruct, frozen=True, kw_only=True):
    """A toolstack's follower. holder: the one that writes, "" for none; standby: another one, which waits; beat: it counts while the first one follows."""

    name: str
    holder: str
    standby: str
    beat: int


# --- who reaches whom -------------------------------------------------------------------------------


class TraceCall(CallStruct, frozen=True, kw_only=True):
    """A question to the twin: from source to target and back. source, target: a VIF ('web1/0'), a VM, or 'outside'. A caller with a scope asks about its own VIFs,
    gives neither frame nor at, and is shown the steps of its own objects.

    protocol: icmp, tcp or udp. port: of tcp or udp. frame: in place of a conversation this one, in hexadecimal; target may be left out then. at: in the pool as it was after a
    revision or the record of an id, or at a time (RFC 3339).
    """

    source: str
    target: str = ""
    protocol: str = "icmp"
    port: int = 0
    frame: str = ""
    at: str = ""


class TracedStep(AnswerStruct, frozen=True, kw_only=True):
    """A look-up in a table. table: -1 for what is done after the last one. match: empty, and priority -1, where no flow matched. source: the object behind the
    flow; place: its line in the pool's document, as file:line:column. wrong: the fields for which a port's guard dropped the frame."""

    table: int
    name: str
    does: str
    match: str
    priority: int
    source: str
    place: str
    wrong: str
    actions: list[str]


class TracedHop(AnswerStruct, frozen=True, kw_only=True):
    """A packet in one bridge. came_in: the port. frame: as it came in, in hexadecimal. sent: the frames that left, in words."""

    switch: str
    came_in: str
    frame: str
    steps: list[TracedStep]
    sent: list[str]


class TracedAnswer(AnswerStruct, frozen=True, kw_only=True):
    """A host's answer to a frame that a rule rejects."""

    to: str
    frame: str


class TracedLoss(AnswerStruct, frozen=True, kw_only=True):
    """A frame that is lost between hosts."""

    place: str
    reason: str


class TracedPacket(AnswerStruct, frozen=True, kw_only=True):
    """One packet's way. verdict: its end in one line. aside: it only helps another one, as ARP does."""

    title: str
    verdict: str
    delivered: list[str]
    hops: list[TracedHop]
    answers: list[TracedAnswer] = []
    lost: list[TracedLoss] = []
    aside: bool = False


class Traced(AnswerStruct, frozen=True, kw_only=True):
    """The packets of a conversation in their order. reached: whether all arrived; reason: why not. guessed: of a past pool, ends of which it is not
    known where they ran."""

    title: str
    reached: bool
    legs: list[TracedPacket]
    reason: str = ""
    guessed: list[str] = []


class VifClass(AnswerStruct, frozen=True, kw_only=True):
    """VIFs that reach the same VIFs and are reached by the same. hosts: those where they run."""

    name: str
    network: str
    hosts: list[str]
    vifs: list[str]


class PartedPair(AnswerStruct, frozen=True, kw_only=True):
    """A pair that reaches while nothing fails, and of which some VIFs that run do not in these failures. source, target: positions in `classes`."""

    source: int
    target: int
    failures: list[str]


class ReachabilityMatrix(AnswerStruct, frozen=True, kw_only=True):
    """reaches: a row for each class that sends, with a column for each that receives, in the order of `classes`. port: 0 for ping. parted: by single
    failures, where those were asked for. guessed: of a past pool, VIFs of which it is not known where they ran."""

    protocol: str
    port: int
    classes: list[VifClass]
    reaches: list[list[bool]]
    parted: list[PartedPair] = []
    guessed: list[str] = []


class SingleFailure(AnswerStruct, frozen=True, kw_only=True):
    """A failure of a host, or of a link. down, cut: its name in a question, one of them empty. fails: the expectations that do not hold then; unasked: those of which
    nothing is asked, since each pair has an end on the host that is down."""

    text: str
    down: str = ""
    cut: str = ""
    fails: list[str] = []
    unasked: list[str] = []


class JudgingStep(AnswerStruct, frozen=True, kw_only=True):
    """Security groups whose rules are asked together; the first step in which a rule matches decides. mandatory: of their mandatory rules."""

    tier: str
    mandatory: bool
    groups: list[str]


class ExplainedFlow(AnswerStruct, frozen=True, kw_only=True):
    """A flow that a host has for a VIF. source: the object behind it; place: its line in the pool's document. asks: the groups whose rules it asks."""

    table: int
    name: str
    does: str
    priority: int
    match: str
    source: str
    place: str = ""
    asks: list[str] = []


class ExplainedVif(AnswerStruct, frozen=True, kw_only=True):
    """host: where it runs, null for nowhere: then it has no flows. steps: the groups that judge it."""

    vif: str
    host: str | None
    steps: list[JudgingStep]
    flows: list[ExplainedFlow]


class VifTraffic(AnswerStruct, frozen=True, kw_only=True):
    """What the port of a VIF has counted on the host where it runs. at: when, in milliseconds since 1970. They begin anew with a new port, as after a migration."""

    host: str
    at: int
    from_vm_packets: int
    from_vm_bytes: int
    from_vm_dropped: int
    to_vm_packets: int
    to_vm_bytes: int
    to_vm_dropped: int


class TunnelTraffic(AnswerStruct, frozen=True, kw_only=True):
    """What a host has sent to another through tunnels, as its flows count: frames, and their bytes before they are encapsulated. at: when, in milliseconds
    since 1970. A part of it begins anew where flows do, so that it may become less."""

    source: str
    to: str
    at: int
    packets: int
    bytes: int


class Traffic(AnswerStruct, frozen=True, kw_only=True):
    """The counters of VIFs, by their ids. missing: the hosts whose VIFs are not all there, each with the reason. tunnels: of the whole pool, for callers
    without a scope."""

    vifs: dict[str, VifTraffic]
    missing: dict[str, str] = {}
    tunnels: list[TunnelTraffic] = []


class VifAccount(AnswerStruct, frozen=True, kw_only=True):
    """What a VIF has sent, as its policy has let it pass, and got, since it was made, on whatever hosts it ran: with VIFs of the pool, and with stations outside. written: when a host
    has last written of it, null for never."""

    written: str | None
    from_vm_pool_packets: int
    from_vm_pool_bytes: int
    from_vm_outside_packets: int
    from_vm_outside_bytes: int
    to_vm_pool_packets: int
    to_vm_pool_bytes: int
    to_vm_outside_packets: int
    to_vm_outside_bytes: int


class Accounting(AnswerStruct, frozen=True, kw_only=True):
    """The accounts of VIFs, by their ids."""

    vifs: dict[str, VifAccount]


# --- who calls, and what was done ------------------------------------------------------------------


class TokenCall(CallStruct, frozen=True, kw_only=True):
    """A token that is made. networks, vms, security_groups, qos_classes: its scope, by names with `*` for anything; labels: KEY=VALUE, of networks and VMs; none
    for the whole pool.
    max_vifs, max_vms: quotas of the scope. host: of the role host. days: until it ends, 0 for never. user: a user whom a reverse proxy
    names, without a secret. replace: end one of that name that is there."""

    role: str
    host: str = ""
    networks: list[str] = []
    vms: list[str] = []
    security_groups: list[str] = []
    qos_classes: list[str] = []
    labels: list[str] = []
    max_vifs: int | None = None
    max_vms: int | None = None
    days: float = 0.0
    user: bool = False
    replace: bool = False


class Token(AnswerStruct, frozen=True, kw_only=True):
    """A token without its secret. maker: who made it. ends: null for never."""

    name: str
    role: str
    user: bool = False
    host: str = ""
    networks: list[str] = []
    vms: list[str] = []
    security_groups: list[str] = []
    qos_classes: list[str] = []
    labels: list[str] = []
    max_vifs: int | None = None
    max_vms: int | None = None
    made: str | None = None
    maker: str = ""
    ends: str | None = None


class NewToken(AnswerStruct, frozen=True, kw_only=True):
    """A token that was made. secret: what its bearer shows; this answer alone has it. Empty for a user."""

    token: Token
    secret: str


class Done(AnswerStruct, frozen=True, kw_only=True):
    """Whether there was anything to do."""

    done: bool


class Caller(AnswerStruct, frozen=True, kw_only=True):
    """Who calls. token: null for the controller's own machine and its token file, which may do everything."""

    name: str
    role: str
    source: str = ""
    token: Token | None = None


class HistoryChange(AnswerStruct, frozen=True, kw_only=True):
    """An object that changed. old, new: the fields that differ, or all of one that goes or comes; of rules and uplinks those that differ.

    reason, disruption: as the plan had them; empty for a step of what runs.
    """

    action: str
    noun: str
    name: str
    old: dict[str, Any]
    new: dict[str, Any]
    reason: str = ""
    disruption: str = ""


class HistoryEntry(AnswerStruct, frozen=True, kw_only=True):
    """A change of the pool. revision: the pool's after it, null for a step that raises none. caller, source: who made it, from where.
    reason: why, in their words. disruption: of its plan, empty for a step. count: of objects; changes: them, null in a list. refused: the code of the
    refusal, of `count` calls that were refused and of which `call` is the first; empty for a change."""

    id: str
    revision: int | None
    time: str
    caller: str
    source: str = ""
    reason: str = ""
    call: str = ""
    disruption: str = ""
    summary: str = ""
    count: int = 0
    refused: str = ""
    changes: list[HistoryChange] | None = None


class PastPool(AnswerStruct, frozen=True, kw_only=True):
    """The pool as it was after a revision or at a time. revision, time: of the last change before it. objects: all that was configured, by the word of its
    noun, each with the words of its object in this API."""

    revision: int
    time: str = ""
    objects: dict[str, list[dict[str, Any]]] = {}
