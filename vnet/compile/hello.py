"""Flows that take hellos (vnet/util/hello_frames.py) out of the way of guests' frames, and hand them to the agent.

One rule: a hello never goes to a VIF, and none of a VIF goes on: the source guard drops what is sent to their group.
"""

from __future__ import annotations

from collections.abc import Iterable

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import Entries
from vnet.compile.pipeline import Category, Table, cookie
from vnet.compile.view import HostView
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.objects.devices import patch_device
from vnet.util.hello_frames import HELLO_GROUP, HELLO_TYPE

HELLO = b"vnet:hello"  # userdata of the packet-in by which the agent gets one
OF_HELLO = 0x770B_0000  # the meter of what comes by a tunnel port, but for its ofport (see rates.OURS)
UPLINK_RATE = 2000  # frames a second: while hosts look at VLANs half of that comes
HELLO_RATE, HELLO_BURST = 500, 1000  # frames a second; of 64 hosts some 20 come
HELLO_BY = b"vnet:hello:"  # and the uplink's name: one that came by that
# Of tunnels: no VXLAN or Geneve network has it, and on a GRE network that has it nobody may send to the group.
HELLO_KEY = 0
HELLO_PRIORITY = 400  # above any network's


def uplink_hello_flows(uplink: str, nics: Iterable[int]) -> Entries:
    """What takes hellos out of the frames that come in by an uplink's NICs, given by ofport."""
    mark = cookie(Category.HELLO, uplink)
    meter = Meter(OF_HELLO, (Band(UPLINK_RATE, UPLINK_RATE),), packets=True)
    tell = (act.MeterAction(meter.meter_id), act.ToController(userdata=HELLO_BY + uplink.encode()))
    matches = [Match(in_port=nic, eth_dst=HELLO_GROUP, eth_type=HELLO_TYPE) for nic in sorted(nics)]
    return (meter, *(Flow(priority=HELLO_PRIORITY, cookie=mark, match=match, actions=tell) for match in matches))


def hello_flows(view: HostView, device: str, _: str) -> Entries:
    """What becomes of hellos that come in by a tunnel port, or by the patch to an uplink's bridge, which should have taken them out."""
    ofport = view.device(device)
    if ofport is None:
        return ()
    mark = cookie(Category.HELLO, device)
    if device not in ENCAPSULATION_OF_DEVICE:
        if view.uplink(device.removeprefix(patch_device(""))) is None:
            return ()  # a port of somebody else
        match = Match(in_port=ofport, eth_dst=HELLO_GROUP)
        return (Flow(table=Table.CLASSIFY, priority=HELLO_PRIORITY, cookie=mark, match=match, actions=()),)
    meter = Meter(OF_HELLO | ofport, (Band(HELLO_RATE, HELLO_BURST),), packets=True)
    match = Match(in_port=ofport, tun_id=HELLO_KEY, eth_dst=HELLO_GROUP, eth_type=HELLO_TYPE)
    tell = (act.MeterAction(meter.meter_id), act.ToController(userdata=HELLO))
    return (meter, Flow(table=Table.CLASSIFY, priority=HELLO_PRIORITY, cookie=mark, match=match, actions=tell))
