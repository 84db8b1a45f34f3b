"""Flows that copy VIFs' frames to the agent while a capture runs, at a rate that a meter for each VIF and direction keeps.

One rule: a captured frame goes on as if nothing had been: its copy is one action, and the frame is looked up again in the same table past
these flows. They last for LEASE_S unless they are renewed, so that an agent that dies leaves none.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from ovsctl.openflow.fields import MatchValue
from vnet.compile.flows import Entries, Fields, goto
from vnet.compile.inputs import CAPTURES, CaptureTap
from vnet.compile.l2 import TAG_TYPES
from vnet.compile.pipeline import (
    ANY_TAG,
    REG_PORT,
    REG_SEEN,
    REG_TAPPED,
    TAG_MASK,
    VLAN_SEGMENT,
    Category,
    Table,
    cookie,
)
from vnet.compile.view import HostView, VifRole
from vnet.compile.vif import keeps_tags
from vnet.objects import Vif

LEASE_S = 15
# Meters of captures, but for the capture's number here, the VIF's ofport and the direction (see rates.OURS).
OF_CAPTURED = 0x7720_0000
MAX_SNAP = 0xFFFF
_PRIORITY = 64_000  # below the flows that watch for a probe's frames
_OF_A_CAPTURE = 1_000
_MARK = b"vnet:capture:"


class Flowing(IntEnum):
    """The direction of a VIF's frames."""

    SENT = 0
    RECEIVED = 1


class Tapped(NamedTuple):
    """What a packet-in says of a captured frame: the capture's number on this host, the VIF, and the direction."""

    slot: int
    flowing: Flowing
    vif: str


def read_tapped(userdata: bytes) -> Tapped | None:
    """The note in a packet-in's userdata; None for a packet-in that is about something else."""
    if not userdata.startswith(_MARK) or len(userdata) < len(_MARK) + 2:
        return None
    slot, flowing = userdata[len(_MARK) : len(_MARK) + 2]
    return Tapped(slot, Flowing(flowing), userdata[len(_MARK) + 2 :].decode())


def meter_of_capture(slot: int, ofport: int, flowing: Flowing) -> int:
    """The number of a meter."""
    return OF_CAPTURED | slot << 17 | ofport << 1 | flowing


def capture_flows(view: HostView, capture: str, _: str) -> Entries:
    """The meters of a capture, and the flows that copy the frames of its VIFs that are here; without the flows once it is at its end."""
    tap = view.capture(capture)
    if tap is None:
        return ()
    here = [(vif, ofport) for vif, ofport in tapped_here(view, tap)]
    meters = [
        Meter(meter_of_capture(tap.slot, ofport, flowing), (_band(tap, 2 * len(here)),), packets=True)
        for _, ofport in here
        for flowing in Flowing
    ]
    if not tap.flowing:
        return tuple(meters)
    mark = cookie(Category.CAPTURE, capture)
    return (*meters, *(flow for vif, ofport in here for flow in _taps(view, tap, vif, ofport, mark)))


def tapped_here(view: HostView, tap: CaptureTap) -> Iterator[tuple[Vif, int]]:
    """The VIFs of a capture that are on this host, or on their way to it, each with its ofport."""
    for id, network in tap.vifs:
        vif = view.vif(id, network)
        if vif is not None and view.role(vif) in (VifRole.ACTIVE, VifRole.INCOMING):
            ofport = view.ofport(vif)
            if ofport is not None:
                yield vif, ofport


def _band(tap: CaptureTap, shares: int) -> Band:
    """An equal share of the capture's rate for each VIF and direction, with a second's worth at once."""
    rate = max(1, tap.rate // shares)
    return Band(rate, rate)


def _taps(view: HostView, tap: CaptureTap, vif: Vif, ofport: int, mark: int) -> Iterator[Flow]:
    network = view.network(vif.network)
    if network is None or network.segment is None:
        return
    yield from _side(tap, vif, (Flowing.SENT, ofport), Table.CLASSIFY, {"in_port": ofport}, mark)
    trunk, segment = vif.trunk, network.segment
    segments: list[MatchValue] = [segment | tag for tag in (0, *(trunk.tags if trunk is not None else ()))]
    if trunk is not None and not trunk.tags:
        segments = [(segment, ANY_TAG)]
    for metadata in segments:
        own: Fields = {REG_PORT: ofport, "metadata": metadata}
        stacked = trunk is None and not keeps_tags(view, vif)  # frames with another tag are dropped there
        yield from _side(tap, vif, (Flowing.RECEIVED, ofport), Table.DELIVER, own, mark, stacked=stacked)


def _side(
    tap: CaptureTap, vif: Vif, side: tuple[Flowing, int], table: Table, own: Fields, mark: int, *, stacked: bool = False
) -> Iterator[Flow]:
    """The flows of one direction: a rule of the filter is a flow, of falling priority."""
    flowing = side[0]
    bit = 1 << (4 + CAPTURES * flowing + tap.slot)
    received, later = flowing is Flowing.RECEIVED, filtered_by_agent(vif, flowing)
    # The register is cleared for the next VIF that a flooded frame goes to.
    on = (
        act.SetField(REG_TAPPED, (bit, bit)),
        goto(table),
        *((act.SetField(REG_TAPPED, (0, bit)),) if received else ()),
    )
    userdata = _MARK + bytes((tap.slot, flowing)) + vif.id.encode()
    snap = MAX_SNAP if later else tap.snap
    copy = act.ToController(max_len=snap, userdata=userdata, meter=meter_of_capture(tap.slot, side[1], flowing))
    # The agent's own frames, of probes, are none that the VM has sent or gets.
    own = {**own, REG_SEEN: 0, REG_TAPPED: (0, bit)}
    # A switch sends no frame back to where it came from.
    found: list[tuple[Fields, bool]] = [({"in_port": side[1]}, False)] if received else []
    found += [({"eth_type": tag}, False) for tag in TAG_TYPES] if stacked else []
    found += [(dict(rule.match), rule.wanted) for rule in tap.rules if not later]
    if later or not tap.rules:
        found.append(({}, True))
    for place, (match, wanted) in enumerate(found):
        priority = _PRIORITY - _OF_A_CAPTURE * tap.slot - place
        actions = (copy, *on) if wanted else on
        yield Flow(Match(**own, **match), actions, table, priority, mark, hard_timeout=LEASE_S)


def filtered_by_agent(vif: Vif, flowing: Flowing) -> bool:
    """Whether frames are told apart by the agent: those that a trunk is sent have no tag yet where they are copied."""
    return vif.trunk is not None and flowing is Flowing.RECEIVED


def as_delivered(vif: Vif, flowing: Flowing, frame: bytes, segment: int) -> bytes:
    """A captured frame with the tag that it is delivered with to a trunk."""
    tag = segment & TAG_MASK if segment & VLAN_SEGMENT else 0
    if not filtered_by_agent(vif, flowing) or not tag:
        return frame
    return frame[:12] + TAG_TYPES[0].to_bytes(2, "big") + tag.to_bytes(2, "big") + frame[12:]
