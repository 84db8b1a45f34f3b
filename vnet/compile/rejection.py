"""Rejected packets: the flows that take them to the agent, at a rate, and the packet-out of its answer.

One rule: an answer goes to the MAC that the rejected packet came from, if that is where its VIF is; nowhere else.
A packet that was sent by the rejecting VIF is answered at its own port. A packet that was sent to it is answered as by it, from LOOKUP on.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from ovsctl.openflow.fields import ReservedPort
from vnet.compile.flows import ETH_IPV4, ETH_IPV6, Actions, Entries, Fields, goto
from vnet.compile.pipeline import REG_FROM, REG_PORT, REG_SEEN, Category, From, Table, cookie
from vnet.compile.rejection_frames import LOOKED_AT, rejection_of
from vnet.compile.view import HostView, VifRole
from vnet.objects import Direction, SecurityGroup, Verdict, Vif
from vnet.objects.identity import macs_of
from vnet.objects.limits import REJECTIONS_OF_VIF
from vnet.util.frames import mac_bytes

OF_REJECT = 0x7701_0000  # the meter of a VIF's rejections, but for its ofport (see rates.OURS)
UNICAST = (0, 1 << 40)  # the bit of a MAC that groups have
_MARK = b"vnet:reject:"
_SIDES = {Direction.EGRESS: b"\0", Direction.INGRESS: b"\1"}


class Rejected(NamedTuple):
    """A rejected packet at the agent. frame: its first bytes, without a tag; tun_src: the sending host, None for no tunnel."""

    userdata: bytes
    frame: bytes
    in_port: int
    segment: int
    tun_src: str | None


class RejectReply(NamedTuple):
    """A packet-out: the answer to a rejected packet, sent as if it had come in by a port."""

    frame: bytes
    in_port: int
    actions: Actions


def is_rejection(userdata: bytes) -> bool:
    """Whether a packet-in is about a rejected packet."""
    return userdata.startswith(_MARK)


def rejects(group: SecurityGroup) -> bool:
    """Whether a group can reject a packet."""
    return Verdict.REJECT in (group.ingress, group.egress, *(rule.action for rule in group.rules))


def reject_flows(view: HostView, vif_id: str, network_name: str) -> Entries:
    """The meter of a VIF's rejections, and its flows that send them to the agent; none for a VIF that can reject nothing."""
    vif = view.vif(vif_id, network_name)
    if vif is None or not vif.groups:
        return ()
    network, ofport = view.network(network_name), view.ofport(vif)
    if network is None or network.segment is None or ofport is None:
        return ()
    groups = [view.group(name, network_name) for name in vif.groups]
    if not any(group is not None and group.enforces and rejects(group) for group in groups):
        return ()
    if view.role(vif) not in (VifRole.ACTIVE, VifRole.INCOMING):
        return ()
    meter = Meter(OF_REJECT | ofport, (Band(REJECTIONS_OF_VIF, REJECTIONS_OF_VIF),), packets=True)
    return (meter, *_to_agent(vif, ofport, meter.meter_id))


def _to_agent(vif: Vif, ofport: int, meter: int) -> Iterator[Flow]:
    """What is for a single host. What is sent to a VIF must be for its own MAC: others got a copy of a frame for an unknown one."""
    mark = cookie(Category.REJECT, vif.id)
    sides: list[tuple[Direction, Table, Fields]] = [
        (Direction.EGRESS, Table.EGRESS_REJECT, {"in_port": ofport, "eth_dst": UNICAST})
    ]
    for mac in macs_of(vif):
        sides.append((Direction.INGRESS, Table.INGRESS_REJECT, {REG_PORT: ofport, "eth_dst": mac}))
    for direction, table, own in sides:
        userdata = _MARK + _SIDES[direction] + ofport.to_bytes(2, "big")
        actions = (act.MeterAction(meter), act.ToController(max_len=LOOKED_AT, userdata=userdata))
        for eth_type in (ETH_IPV4, ETH_IPV6):
            match = Match(**own, **{REG_SEEN: 0, "eth_type": eth_type})  # no guest gets an answer to a probe's packet
            yield Flow(table=table, priority=100, cookie=mark, match=match, actions=actions)


def reply_to(view: HostView, rejected: Rejected) -> RejectReply | None:
    """The packet-out that answers a rejected packet; None where there must be none."""
    body = rejected.userdata.removeprefix(_MARK)
    ofport = int.from_bytes(body[1:3], "big")
    vif = next((vif for id, number in view.ports.items() if number == ofport and (vif := view.vifs.get(id))), None)
    if vif is None or (answer := rejection_of(rejected.frame)) is None:
        return None
    segment = act.SetField("metadata", rejected.segment)
    if body[:1] == _SIDES[Direction.EGRESS]:
        deliver = (segment, act.SetField(REG_PORT, ofport), goto(Table.DELIVER))
        return RejectReply(answer, ReservedPort.CONTROLLER, deliver)
    if _is_spoofed(view, vif, rejected):
        return None
    return RejectReply(answer, ofport, (segment, act.SetField(REG_FROM, From.VIF), goto(Table.LOOKUP)))


def _is_spoofed(view: HostView, receiver: Vif, rejected: Rejected) -> bool:
    """Whether a packet came from elsewhere than the VIF whose MAC it has as its source. A MAC of no VIF is a station's, which nobody
    here knows the place of; only an unlocked VIF can send as one, and it is not answered."""
    mac = rejected.frame[6:12]
    by_port = next((id for id, number in view.ports.items() if number == rejected.in_port), None)
    if by_port is not None:
        sender = view.vifs.get(by_port)
        return sender is None or mac not in map(mac_bytes, macs_of(sender))
    homes = {binding.host for binding in view.bindings(receiver.network) if mac in map(mac_bytes, macs_of(binding))}
    if not homes:
        return False
    if rejected.tun_src is None:
        return view.me in homes
    return rejected.tun_src not in {str(ip_address(vtep)) for host in homes if (vtep := view.vtep(host)) is not None}
