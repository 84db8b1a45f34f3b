"""Questions to hosts: what have the ports of your VIFs received and sent, and what has gone to each peer? A row each: a controller asks, an agent answers.

One rule: counters are the switch's own, and begin anew with a new port or flow; whoever asks keeps what it needs to know of before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec

from vnet.db.replies import HostReply
from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE

MAX_COUNTED = 2000  # VIFs of one host
MAX_TRAFFIC_BYTES = 512 * 1024  # of an answer: 2,000 VIFs with usual ids and great counters take half of it


@dataclass(frozen=True, slots=True)
class TrafficQuery(Declared):
    """A question. vif: its id, empty for all of the host. answer: the database keeps it off its disk."""

    NOUN: ClassVar[Noun] = Noun("traffic-query", "traffic-queries", "traffic query", "TrafficQuery", "", key="id")
    TITLE: ClassVar[str] = "a traffic query"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    id: str = attr(LINE, "Its id.")
    host: str = attr(LINE, "The host that is asked.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    vif: str = attr(LINE, "The VIF, empty for all.", default="")
    answer: str = attr(LINE, "Empty until answered, then a TrafficReply as JSON.", default="", ephemeral=True)


class PortTraffic(msgspec.Struct, frozen=True, array_like=True):
    """What the port of a VIF has counted: packets, bytes and drops of what came from the VM and of what went to it."""

    vif: str
    from_vm_packets: int = 0
    from_vm_bytes: int = 0
    from_vm_dropped: int = 0
    to_vm_packets: int = 0
    to_vm_bytes: int = 0
    to_vm_dropped: int = 0


class PeerTraffic(msgspec.Struct, frozen=True, array_like=True):
    """What has gone to another host through tunnels: frames, and their bytes before they are encapsulated."""

    host: str
    packets: int = 0
    bytes: int = 0


class TrafficReply(HostReply, frozen=True):
    """A host's counters. at: when they were read, in milliseconds since 1970. left_out: VIFs beyond MAX_COUNTED. peers: where all of the host was asked for."""

    MAX_BYTES = MAX_TRAFFIC_BYTES
    TOO_LONG = "the counters are too many"
    ports: tuple[PortTraffic, ...] = ()
    at: int = 0
    left_out: int = 0
    peers: tuple[PeerTraffic, ...] = ()
