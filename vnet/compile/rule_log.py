"""Packets that rules log: the flows that take their first bytes to the agent, at a rate, and what a line about one says.

One rule: only what a rule decided is logged: a packet that it forbids, or the first of a connection that it allows. Of protocols without
connections that is each packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import ICMP, ICMPV6, TCP, UDP, Entries, Fields
from vnet.compile.pipeline import REG_PORT, REG_SEEN, Category, Table, cookie
from vnet.compile.rejection_frames import packet_of
from vnet.compile.security import rule_tag
from vnet.compile.view import HostView, VifRole
from vnet.objects import Direction, Rule, SecurityGroup
from vnet.objects.limits import LOGGED_OF_VIF, SCTP
from vnet.objects.tiers import Tier

OF_LOG = 0x7702_0000  # the meter of a VIF's logged packets, but for its ofport (see rates.OURS)
LOGGED_BYTES = 192  # of a frame: its headers
_MARK = b"vnet:log:"
_SIDES = {Direction.EGRESS: b"\0", Direction.INGRESS: b"\1"}
_PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6", SCTP: "sctp"}


class Logged(NamedTuple):
    """A logged packet at the agent. tag: of its rule. frame: its first bytes, without a tag."""

    userdata: bytes
    tag: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What a line says. source, target: addresses with ports, or MACs of what is no IP. place: the rule's, in a document."""

    vif: str
    vm: str
    network: str
    group: str
    rule: str
    action: str
    direction: str
    protocol: str
    source: str
    target: str
    tier: str = Tier.VIF.value

    @property
    def place(self) -> str:
        return f"security-groups.{self.group}.{f'rules.{self.rule}' if self.rule else 'default'}"


def is_logged(userdata: bytes) -> bool:
    """Whether a packet-in is about a packet that a rule logs."""
    return userdata.startswith(_MARK)


def log_flows(view: HostView, vif_id: str, network_name: str) -> Entries:
    """The meter of what a VIF's rules log, and its flows that send it to the agent; none for a VIF without such rules."""
    vif = view.vif(vif_id, network_name)
    if vif is None or not vif.groups:
        return ()
    network, ofport = view.network(network_name), view.ofport(vif)
    if network is None or network.segment is None or ofport is None:
        return ()
    groups = [group for name in vif.groups if (group := view.group(name, network_name)) is not None]
    if not any(rule.log for group in groups if group.enforces for rule in group.rules):
        return ()
    if view.role(vif) not in (VifRole.ACTIVE, VifRole.INCOMING):
        return ()
    meter = Meter(OF_LOG | ofport, (Band(LOGGED_OF_VIF, LOGGED_OF_VIF),), packets=True)
    return (meter, *_to_agent(vif_id, ofport, meter.meter_id))


def _to_agent(vif_id: str, ofport: int, meter: int) -> Iterator[Flow]:
    mark = cookie(Category.LOG, vif_id)
    sides: tuple[tuple[Direction, Table, Fields], ...] = (
        (Direction.EGRESS, Table.EGRESS_LOG, {"in_port": ofport}),
        (Direction.INGRESS, Table.INGRESS_LOG, {REG_PORT: ofport}),
    )
    for direction, table, own in sides:
        userdata = _MARK + _SIDES[direction] + ofport.to_bytes(2, "big")
        actions = (act.MeterAction(meter), act.ToController(max_len=LOGGED_BYTES, userdata=userdata))
        match = Match(**own, **{REG_SEEN: 0})  # a probe's packet is nobody's
        yield Flow(table=table, priority=100, cookie=mark, match=match, actions=actions)


def entry_of(view: HostView, logged: Logged) -> LogEntry | None:
    """What is to be said of a logged packet; None if its VIF or its rule is gone."""
    body = logged.userdata.removeprefix(_MARK)
    ofport, outwards = int.from_bytes(body[1:3], "big"), body[:1] == _SIDES[Direction.EGRESS]
    vif = next((vif for id, number in view.ports.items() if number == ofport and (vif := view.vifs.get(id))), None)
    found = _rule_of(view, view.obeyed(vif) if vif is not None else (), logged.tag)
    if vif is None or found is None:
        return None
    group, rule = found
    direction = Direction.EGRESS if outwards else Direction.INGRESS
    ends = five_tuple(logged.frame)
    about = (vif.id, vif.vm or "", vif.network, group.name, rule.name, rule.action.value, direction.value)
    return LogEntry(*about, *ends, tier=group.step_of(rule.name))


def _rule_of(view: HostView, groups: tuple[str, ...], tag: int) -> tuple[SecurityGroup, Rule] | None:
    known = (view.groups[name] for name in groups if name in view.groups)
    return next(
        ((group, rule) for group in known for rule in group.rules if rule.log and rule_tag(group, rule) == tag), None
    )


def five_tuple(frame: bytes) -> tuple[str, str, str]:
    """Protocol, source and target of a frame: of an IP packet its addresses and ports, of another one its MACs."""
    packet = packet_of(frame)
    if packet is None:
        return f"ethertype 0x{frame[12:14].hex()}", frame[6:12].hex(":"), frame[:6].hex(":")
    protocol, at = _PROTOCOLS.get(packet.protocol, str(packet.protocol)), packet.at
    source, target = str(ip_address(packet.source)), str(ip_address(packet.target))
    if packet.protocol in (ICMP, ICMPV6) and len(packet.data) >= at + 2:
        return f"{protocol} {packet.data[at]}/{packet.data[at + 1]}", source, target
    if packet.protocol in (TCP, UDP, SCTP) and len(packet.data) >= at + 4:
        ports = (int.from_bytes(packet.data[start : start + 2], "big") for start in (at, at + 2))
        source, target = (
            f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in zip((source, target), ports, strict=True)
        )
    return protocol, source, target
