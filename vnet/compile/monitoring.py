"""What groups in monitor mode would drop or reject: the flows that count it and take its first bytes to the agent, at a rate.

One rule: a group in monitor mode is judged by itself, beside the groups of the VIF that enforce: what it alone would change is seen.
Flows count each packet; of a connection the agent gets the first one, and of those that run on a few a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import ICMP, ICMPV6, TCP, UDP, Entries, Fields
from vnet.compile.pipeline import REG_GROUP, REG_PORT, REG_SEEN, REG_VERDICT, Category, Finding, Table, cookie
from vnet.compile.rejection_frames import packet_of
from vnet.compile.rule_log import LOGGED_BYTES, LogEntry, Logged, five_tuple
from vnet.compile.security import IS_TRACKED, LISTENING, NEW, RELATED, REPLY, rule_tag
from vnet.compile.view import HostView, VifRole
from vnet.objects import Direction, Rule, SecurityGroup, Verdict, Vif
from vnet.objects.limits import LOGGED_OF_VIF, MONITORED_RUNNING, SCTP

# The meters of a VIF's monitored packets, but for its ofport (see rates.OURS): those that begin a connection, and others.
OF_FIRST, OF_RUNNING = 0x7703_0000, 0x7704_0000
NO_IP = -1  # the protocol of a frame that is no IP; its port is the Ethernet type
_MARK = b"vnet:monitor:"
_SIDES = {Direction.EGRESS: b"\0", Direction.INGRESS: b"\1"}
_TABLES = {Direction.EGRESS: Table.EGRESS_LOG, Direction.INGRESS: Table.INGRESS_LOG}
DIRECTION_OF = {table: direction for direction, table in _TABLES.items()}
_ECHO = {ICMP: 8, ICMPV6: 128}  # RFC 792, RFC 4443 §4.1


@dataclass(frozen=True, slots=True)
class WouldForbid:
    """A packet that a group in monitor mode would drop or reject, by the connection that it is of.

    direction: in which that began, from the VIF's side. peer: the other end's address, or "" without IP. port: of the side that answers,
    with ICMP the type of the message. rule: "" for the group's default. answers: of a stateless group, whose packets begin nothing, one that comes from that port; its direction is
    its own.
    """

    vif: str
    group: str
    rule: str
    direction: Direction
    protocol: int
    port: int
    peer: str
    mac: str
    line: LogEntry
    answers: bool = False


def is_monitored(userdata: bytes) -> bool:
    """Whether a packet-in is about a packet that a group in monitor mode would drop or reject."""
    return userdata.startswith(_MARK)


def monitors_of(view: HostView, vif: Vif) -> list[SecurityGroup]:
    """The groups of a VIF that are in monitor mode."""
    found = (view.group(name, vif.network) for name in vif.groups)
    return [group for group in found if group is not None and not group.enforces]


def monitor_flows(view: HostView, vif_id: str, network_name: str) -> Entries:
    """The meters of a VIF's monitored packets, and the flows that count them; none for a VIF without a group in monitor mode."""
    vif = view.vif(vif_id, network_name)
    if vif is None or not vif.groups:
        return ()
    network, ofport = view.network(network_name), view.ofport(vif)
    if network is None or network.segment is None or ofport is None:
        return ()
    groups = monitors_of(view, vif)
    if not groups or view.role(vif) not in (VifRole.ACTIVE, VifRole.INCOMING):
        return ()
    first = Meter(OF_FIRST | ofport, (Band(LOGGED_OF_VIF, LOGGED_OF_VIF),), packets=True)
    running = Meter(OF_RUNNING | ofport, (Band(MONITORED_RUNNING, MONITORED_RUNNING),), packets=True)
    return (first, running, *(flow for group in groups for flow in _counting(vif_id, ofport, group)))


def _counting(vif_id: str, ofport: int, group: SecurityGroup) -> Iterator[Flow]:
    mark = cookie(Category.MONITOR, vif_id)
    for direction, table in _TABLES.items():
        own: Fields = {"in_port": ofport} if direction is Direction.EGRESS else {REG_PORT: ofport}
        seen = own | {REG_SEEN: 0, REG_GROUP: group.number, REG_VERDICT: (Finding.MONITORED, Finding.MONITORED)}
        userdata = _MARK + _SIDES[direction] + ofport.to_bytes(2, "big") + group.number.to_bytes(4, "big")
        for priority, state, meter in (
            (FIRST, (IS_TRACKED | NEW, IS_TRACKED | NEW), OF_FIRST),
            (FIRST, (0, IS_TRACKED), OF_FIRST),
            (RUNNING, (IS_TRACKED, IS_TRACKED), OF_RUNNING),
        ):
            actions = (act.MeterAction(meter | ofport), act.ToController(max_len=LOGGED_BYTES, userdata=userdata))
            match = Match(**seen, ct_state=state)
            yield Flow(table=table, priority=priority, cookie=mark, match=match, actions=actions)


FIRST, RUNNING = 220, 210  # priorities of the flows that count what begins a connection, and what goes on


def counted_of(view: HostView, group: SecurityGroup) -> dict[int, str]:
    """The VIFs here that are in a group, by the cookies of the flows that count for it."""
    return {cookie(Category.MONITOR, vif.id): vif.id for vif in view.vifs.values() if group.name in view.obeyed(vif)}


def would_forbid(view: HostView, logged: Logged, state: int) -> WouldForbid | None:
    """What is to be known of a monitored packet. state: its ct_state. None if its VIF or group is gone, or it is an error about another."""
    body = logged.userdata.removeprefix(_MARK)
    ofport, number = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:7], "big")
    vif = next((vif for id, known in view.ports.items() if known == ofport and (vif := view.vifs.get(id))), None)
    names = view.obeyed(vif) if vif is not None else ()
    group = next((row for name in names if (row := view.groups.get(name)) and row.number == number), None)
    if vif is None or group is None or state & RELATED:
        return None
    outwards = body[:1] == _SIDES[Direction.EGRESS]
    answers = bool(state & REPLY)
    direction = Direction.EGRESS if outwards is not answers else Direction.INGRESS
    rule = next((rule for rule in group.rules if rule_tag(group, rule) == logged.tag), None)
    verdict = rule.action if rule is not None else group.default(direction)
    line = _line(vif, group, rule, "reject" if verdict is Verdict.REJECT else "drop", outwards, logged.frame)
    from_port = not group.stateful and _comes_from_listener(logged.frame)
    protocol, port, peer = _connection(logged.frame, outwards=outwards, answers=answers or from_port)
    mac = (logged.frame[:6] if outwards else logged.frame[6:12]).hex(":")
    return WouldForbid(vif.id, group.name, line.rule, direction, protocol, port, peer, mac, line, from_port)


def _line(vif: Vif, group: SecurityGroup, rule: Rule | None, verb: str, outwards: bool, frame: bytes) -> LogEntry:
    direction = Direction.EGRESS if outwards else Direction.INGRESS
    name = rule.name if rule is not None else ""
    ends = five_tuple(frame)
    about = (vif.id, vif.vm or "", vif.network, group.name, name, f"would {verb}", direction.value)
    return LogEntry(*about, *ends, tier=group.step_of(name))


def _comes_from_listener(frame: bytes) -> bool:
    """Whether a packet's source is the end that listens, by its ports, as LISTENER tells it."""
    packet = packet_of(frame)
    if packet is None or packet.protocol not in (TCP, UDP, SCTP) or len(packet.data) < packet.at + 4:
        return False
    source, target = (int.from_bytes(packet.data[at : at + 2], "big") for at in (packet.at, packet.at + 2))
    return any(source < limit <= target for limit in LISTENING)


def _connection(frame: bytes, *, outwards: bool, answers: bool) -> tuple[int, int, str]:
    """The protocol of a frame's connection, the port of the side that answers, and the peer's address."""
    packet = packet_of(frame)
    if packet is None:
        return NO_IP, int.from_bytes(frame[12:14], "big"), ""
    peer = str(ip_address(packet.target if outwards else packet.source))
    head = packet.data[packet.at : packet.at + 4]
    if packet.protocol in (TCP, UDP, SCTP) and len(head) == 4:
        return packet.protocol, int.from_bytes(head[:2] if answers else head[2:], "big"), peer
    if packet.protocol in _ECHO and head:
        return packet.protocol, _ECHO[packet.protocol] if answers else head[0], peer
    return packet.protocol, 0, peer
