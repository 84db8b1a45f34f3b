"""What travels between the controller and those who call it, as types: the server, the clients and OpenAPI share them.

One rule: words and values are those of the document, spelled with underscores. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

MAX_BODY_BYTES = 16 * 1024 * 1024
Rest = Literal["all"]
Phase = Literal["none", "preparing", "prepared", "receiving", "active"]


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Answers may grow: a client leaves out what it does not know."""


# --- in every answer ------------------------------------------------------------------------------


class Problem(_Answer, frozen=True, kw_only=True):
    """Why a call was refused; nothing has changed. code: for programs. where: the field, object or host it is about."""

    code: str
    message: str
    where: str = ""
    problems: list[DocumentProblem] = []


class DocumentProblem(_Answer, frozen=True, kw_only=True):
    """One thing that is wrong with a document. Lines and columns count from 1; null where no line is at fault."""

    code: str
    message: str
    hint: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None
    length: int | None = None
    text: str = ""


class Reason(_Answer, frozen=True, kw_only=True):
    """Why something is not as desired."""

    code: str
    text: str
    host: str = ""


class Place(_Answer, frozen=True, kw_only=True):
    """Where a VIF is: `defined` (no host has it), `awaited` (a host has a number for its port, which is not there), `claimed` (a
    host has its port), `ready` (packets reach it). ofport: what its port there is to ask for as its ofport_request."""

    state: Literal["defined", "awaited", "claimed", "ready"]
    host: str | None = None
    since: str | None = None
    why: list[Reason] = []
    ofport: int | None = None


class Migration(_Answer, frozen=True, kw_only=True):
    """How far a migration is. waiting: what is missing. not_waited: dead hosts that are not waited for."""

    phase: Phase
    source: str | None = None
    destination: str | None = None
    waiting: list[str] = []
    not_waited: list[str] = []


# --- objects --------------------------------------------------------------------------------------


class Pool(_Answer, frozen=True, kw_only=True):
    name: str
    underlay_mtu: int
    locking_mode: str
    revision: int
    generation: int


class Uplink(_Struct, frozen=True, kw_only=True):
    name: str
    members: list[str]
    mode: Literal["active-backup", "balance-slb", "lacp"] | None = None
    lacp_time: Literal["slow", "fast"] = "slow"
    hash: Literal["source-mac", "tcpudp-ports"] = "source-mac"
    mtu: int | None = None


class Agent(_Answer, frozen=True, kw_only=True):
    """What a host's agent last said. behind: generations it has not acknowledged yet."""

    alive: bool
    generation: int = 0
    behind: int = 0
    started: str | None = None
    version: str = ""
    ovs_version: str = ""
    problems: dict[str, str] = {}


class Host(_Answer, frozen=True, kw_only=True):
    name: str
    address: str | None
    uplinks: list[Uplink]
    owner: str
    agent: Agent
    vifs: int = 0


class HostSpec(_Struct, frozen=True, kw_only=True):
    """A host as a toolstack makes it."""

    address: str | None = None
    uplinks: list[Uplink] = []


class Network(_Answer, frozen=True, kw_only=True):
    name: str
    type: str
    number: int
    key: int | None
    tag: int | Literal["untagged"] | None
    uplink: str | None
    hosts: list[str]
    mtu: int
    owner: str
    vifs: int = 0


class NetworkSpec(_Struct, frozen=True, kw_only=True):
    """A network as a toolstack makes it. What is left out (key, mtu) is allocated or computed, and kept."""

    type: Literal["internal", "vlan", "vxlan", "gre", "geneve"]
    key: int | None = None
    tag: int | Literal["untagged"] | None = None
    uplink: str | None = None
    hosts: list[str] = []
    mtu: int | None = None


class Rule(_Struct, frozen=True, kw_only=True):
    """A rule of a security group. remote: "any", a CIDR, or a group's name. ports: numbers, and ranges as "443-445"."""

    name: str
    direction: Literal["ingress", "egress"]
    protocol: Literal["tcp", "udp", "icmp"] | int | None = None
    ports: list[int | str] = []
    remote: str = "any"
    action: Literal["allow", "drop"] = "allow"


class SecurityGroup(_Answer, frozen=True, kw_only=True):
    """Rules, and what happens to a connection that none matches. vifs: how many are in it."""

    name: str
    number: int
    ingress: str
    egress: str
    rules: list[Rule]
    owner: str
    vifs: int = 0


class SecurityGroupSpec(_Struct, frozen=True, kw_only=True):
    """A security group as a toolstack makes it, or changes it: it then is what the call says."""

    ingress: Literal["allow", "drop"] = "drop"
    egress: Literal["allow", "drop"] = "allow"
    rules: list[Rule] = []


class Vif(_Answer, frozen=True, kw_only=True):
    id: str
    network: str
    mac: str
    vm: str | None
    index: int
    addresses: list[str]
    locking_mode: str
    trunk: list[int] | Rest | None
    host: str | None
    incoming: str | None
    owner: str
    place: Place
    security_groups: list[str] = []
    awaited: bool = False
    migration: Migration | None = None


class VifSpec(_Struct, frozen=True, kw_only=True):
    """A VIF as a toolstack makes it. The MAC is allocated and kept if left out; the VM is made if there is none. awaited: its host
    is programmed before its port is there, see `plug`."""

    network: str
    mac: str | None = None
    vm: str | None = None
    index: int | None = None
    addresses: list[str] | None = None
    locking_mode: Literal["locked", "unlocked", "disabled"] | None = None
    trunk: list[int] | Rest | None = None
    host: str | None = None
    security_groups: list[str] | None = None
    awaited: bool = False


class NewVif(VifSpec, frozen=True, kw_only=True):
    """A VIF whose id is in the body. Without one, `vm` and `index` must be there: the id is VM/INDEX."""

    id: str | None = None


class VmSpec(_Struct, frozen=True, kw_only=True):
    host: str | None = None


class Vm(_Answer, frozen=True, kw_only=True):
    name: str
    host: str | None
    owner: str
    vifs: list[Vif]
    migration: Migration


class Binding(_Answer, frozen=True, kw_only=True):
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
    ofport: int | None = None


class Event(_Answer, frozen=True, kw_only=True):
    """id: give it as Last-Event-ID to go on after it."""

    id: str
    time: str
    kind: str
    text: str
    host: str = ""
    network: str = ""
    vif: str = ""


# --- calls ----------------------------------------------------------------------------------------


class PlugCall(_Struct, frozen=True, kw_only=True):
    """host: where it is to run. wait_s: how long to wait for it to be ready.

    awaited: have all hosts programmed before its port is there, and wait only until its host has a number for the port, which
    `place` then says in `ofport`; hosts' flows follow at once, and are not waited for. It stays so, also while the port is away,
    until `unplug`.
    """

    host: str
    wait_s: float = 0.0
    awaited: bool = False


class GroupsCall(_Struct, frozen=True, kw_only=True):
    """The security groups that a VIF is to be in, instead of those it is in."""

    security_groups: list[str]


class PrepareCall(_Struct, frozen=True, kw_only=True):
    """force: also to a host whose agent does not report."""

    to: str
    force: bool = False


class StepCall(_Struct, frozen=True, kw_only=True):
    """force: see each call."""

    force: bool = False


class MigrateCall(_Struct, frozen=True, kw_only=True):
    """The whole way: prepare, wait until prepared, wait for the guest's announcement (or activate), finish.

    activate: the controller says when, instead of the guest's own announcement. timeout_s: give up waiting after this long,
    leaving things as they are; call again to go on, or abort.
    """

    to: str
    activate: bool = False
    timeout_s: float = 60.0


class EvacuateCall(_Struct, frozen=True, kw_only=True):
    to: str | None = None
    activate: bool = False
    timeout_s: float = 600.0


class Evacuation(_Answer, frozen=True, kw_only=True):
    """Where each VM (or VIF without one) went."""

    moved: dict[str, str]


class Progress(_Answer, frozen=True, kw_only=True):
    """One line of a long call's progress. The last one is `done` or `failed`, and alone has a result: the call's answer."""

    kind: Literal["progress", "done", "failed"]
    text: str
    problem: Problem | None = None
    result: Any = None


# --- the pool as a whole --------------------------------------------------------------------------


class FieldChange(_Answer, frozen=True, kw_only=True):
    old: Any = None
    new: Any = None


class Change(_Answer, frozen=True, kw_only=True):
    """One object that comes, changes or goes, why, and what that disturbs."""

    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    reason: str
    disruption: str
    fields: dict[str, FieldChange] = {}


class Expected(_Answer, frozen=True, kw_only=True):
    """An expectation of the document: whether it would hold after the plan, and whether it holds now. trace: why not."""

    name: str
    holds: bool
    held: bool
    where: str = ""
    why: str = ""
    trace: str = ""


class Difference(_Answer, frozen=True, kw_only=True):
    """Pairs that gain or lose a way: every one of `sources` to every one of `targets`.

    what: "ping", "tcp" or "udp" on any port, or with ranges of ports, as "tcp 80, 443-445".
    """

    gained: bool
    sources: list[str]
    targets: list[str]
    what: list[str]
    text: str


class Plan(_Answer, frozen=True, kw_only=True):
    """What an apply would do. revision: of the pool it was made against, give it to apply. text: the same for people.

    reachability: what it does to who reaches whom; None where that was not asked.
    """

    revision: int
    disruption: str
    changes: list[Change]
    text: str = ""
    expectations: list[Expected] = []
    reachability: list[Difference] | None = None


class Applied(_Answer, frozen=True, kw_only=True):
    """What an apply did. acknowledged, waiting, dead: the hosts that have followed, have not yet, and do not report."""

    plan: Plan
    revision: int
    generation: int
    acknowledged: list[str] = []
    waiting: list[str] = []
    dead: list[str] = []


class TunnelCall(_Struct, frozen=True, kw_only=True):
    """What a frame came out of a tunnel with: its key, and the addresses of the host that sent it and of the one asked."""

    key: int
    source: str
    target: str


class ProbesCall(_Struct, frozen=True, kw_only=True):
    """Questions to hosts, at most 128. wait_s: how long they have to answer. Nothing is sent."""

    probes: list[ProbeCall]
    wait_s: float = 5.0


class ProbeCall(_Struct, frozen=True, kw_only=True):
    """What would the switch of `host` do with a frame?

    Either vif (its id: the frame comes from it) or device (a port of the integration bridge that is no VIF's). frame: its bytes
    in hexadecimal. tracked: what the connection tracker is to say of it each time that it is asked, as "est+rpl+trk"; without
    it "new+trk".
    """

    host: str
    frame: str
    vif: str | None = None
    device: str | None = None
    tunnel: TunnelCall | None = None
    tracked: list[str] = []


class Probe(_Answer, frozen=True, kw_only=True):
    """What the switch of a host would do, as ofproto/trace says it. vifs, devices: its ports by their numbers there.

    problem: why there is no answer; else empty.
    """

    host: str
    text: str = ""
    vifs: dict[str, str] = {}
    devices: dict[str, str] = {}
    problem: str = ""


class PacketsCall(_Struct, frozen=True, kw_only=True):
    """Marked frames to send, at most 256, each once its own round has come. wait_s: how long hosts have to say that they watch."""

    packets: list[PacketCall]
    wait_s: float = 5.0


class PacketCall(_Struct, frozen=True, kw_only=True):
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


class Sighting(_Answer, frozen=True, kw_only=True):
    """A marked frame at a host. where: the port it came in by, or the id of the VIF that would have got it.

    changed: its bytes, in hexadecimal, where they were not as they were sent; else empty.
    """

    host: str
    where: str
    changed: str = ""


class Packet(_Answer, frozen=True, kw_only=True):
    """What became of a marked frame. came: where it came in; caught: who would have got it. why: why it was not sent."""

    sent: bool
    why: str = ""
    came: list[Sighting] = []
    caught: list[Sighting] = []


class Packets(_Answer, frozen=True, kw_only=True):
    """What became of marked frames, in their order. hosts: who watched. left_off: sightings that were too many to tell.

    problems: why nothing was sent, one for each host that does not watch.
    """

    packets: list[Packet]
    hosts: list[str]
    problems: list[str] = []
    left_off: int = 0


class Status(_Answer, frozen=True, kw_only=True):
    """The pool at a glance. problems: all that is not as desired, and why."""

    pool: Pool | None
    controller: str
    database: list[str]
    hosts: int
    live_hosts: int
    networks: int
    vifs: dict[str, int]
    problems: list[Reason]
