"""What hosts find out about the network between them: what each states, and questions to them. A row of a question each: a controller asks, an agent answers.

One rule: a host states what it has heard itself, and nobody else. Who is at fault follows from what all of them state (vnet/health/findings.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import ClassVar

import msgspec

from vnet.db.replies import HostReply
from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE
from vnet.util.frames import SERVICE_VLAN

MAX_HEALTH_BYTES = 256 * 1024
MAX_STATED_MACS = MAX_STATED_ADDRESSES = 32
MAX_TAG, MAX_FRAME_MTU = 4094, 9216


@dataclass(frozen=True, slots=True)
class HealthQuery(Declared):
    """A question: a host looks anew, and answers with a HostHealth as JSON."""

    NOUN: ClassVar[Noun] = Noun("health-query", "health-queries", "health query", "HealthQuery", "", key="id")
    TITLE: ClassVar[str] = "a health query"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    id: str = attr(LINE, "Its id.")
    host: str = attr(LINE, "The host that is asked.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    vlans: str = attr(
        LINE,
        "The VLANs to look at: by uplink, then by tag, 0 for untagged frames, 4096 added for service tags, the MTU, as JSON.",
        default="{}",
    )
    gateways: str = attr(
        LINE,
        "The gateways whose claims to hear from now on: by uplink, then by tag, addresses, as JSON; empty: none.",
        default="",
    )
    answer: str = attr(LINE, "Empty until answered, then a HostHealth as JSON.", default="", ephemeral=True)


class StatedTunnel(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tunnel to a peer. via: its encapsulation, with " encrypted" where it is. hears: whether frames come from there; heard: whether the peer says that they come there;
    both None while nobody knows. mtu: the largest IP packet inside that is known to come there, in bytes, where that is less than `needs`, which networks have. round_trip_us: the
    time there and back. ahead_ms: by how much the peer's clock is ahead."""

    peer: str
    via: str
    hears: bool | None = None
    heard: bool | None = None
    needs: int = 0
    mtu: int | None = None
    round_trip_us: int | None = None
    ahead_ms: int | None = None


class StatedUplink(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came by an uplink when hosts last looked at its VLANs, all at once.

    tags: those that were looked at, 0 for untagged frames, SERVICE_VLAN added for service tags. links: the NICs by which this host sent. senders: the hosts, each with the NIC, that were heard on any of them. By tag, of these by
    their places: missing, those that were not heard there, and narrow, those of which small frames came and none as large as the MTU. strange: senders with the tag that they sent and the other one that came.
    """

    uplink: str
    tags: tuple[int, ...] = ()
    links: tuple[str, ...] = ()
    senders: tuple[tuple[str, str], ...] = ()
    missing: dict[int, tuple[int, ...]] = {}
    narrow: dict[int, tuple[int, ...]] = {}
    strange: tuple[tuple[str, str, int, int], ...] = ()


class StatedMac(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """A MAC that an uplink's bridge hears where it should not, on a VLAN, 0 without a tag. vif: the one here that has it too; "" of a MAC that keeps moving between ports."""

    uplink: str
    mac: str
    tag: int
    vif: str = ""


class StatedAddress(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """An address that several MACs claim on a VLAN of an uplink, 0 without a tag. vif: the one here that has it, as the first of these MACs; "" of the host's own address, and of a gateway."""

    uplink: str
    address: str
    tag: int
    macs: tuple[str, ...]
    vif: str = ""


class StatedNeighbour(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """A station at the other end of a NIC's cable, as it says by LLDP (vnet/util/lldp_frames.py)."""

    uplink: str
    nic: str
    chassis: str
    port: str
    ttl_s: int
    port_description: str = ""
    system: str = ""
    address: str = ""
    vlan: int = 0

    @property
    def place(self) -> str:
        """The switch and its port, as people call them: a port whose identifier is a MAC by what it is described as."""
        is_mac = self.port.count(":") == 5
        return f"{self.system or self.chassis} {(is_mac and self.port_description) or self.port}"


class HostHealth(HostReply, frozen=True, omit_defaults=True):
    """What a host states. looks: whether it sends hellos, so that others may expect any. idle: NICs that carry nothing, with their uplink and the reason."""

    MAX_BYTES = MAX_HEALTH_BYTES
    TOO_LONG = "it is too much for a row"
    looks: bool = False
    tunnels: tuple[StatedTunnel, ...] = ()
    uplinks: tuple[StatedUplink, ...] = ()
    macs: tuple[StatedMac, ...] = ()
    addresses: tuple[StatedAddress, ...] = ()
    neighbours: tuple[StatedNeighbour, ...] = ()
    idle: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def decode(cls, text: str) -> HostHealth:
        """What a row has. An agent of an earlier version has stated nothing."""
        return super().decode(text) if text else cls()


def vlans_of(query: HealthQuery) -> dict[str, dict[int, int]]:
    """The VLANs that a question is about. Raises ValueError for what is none."""
    try:
        found = msgspec.json.decode(query.vlans, type=dict[str, dict[int, int]])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(f"no VLANs: {error}") from None
    if not all(
        0 <= tag & ~SERVICE_VLAN <= MAX_TAG and 0 <= mtu <= MAX_FRAME_MTU
        for mtus in found.values()
        for tag, mtu in mtus.items()
    ):
        raise ValueError("no VLANs: a tag or an MTU is out of its range")
    return found


def gateways_of(query: HealthQuery) -> dict[str, dict[int, list[str]]]:
    """The gateways that a question is about, by uplink and VLAN. Raises ValueError for what is none."""
    if not query.gateways:  # a controller of before asks
        return {}
    try:
        found = msgspec.json.decode(query.gateways, type=dict[str, dict[int, list[str]]])
        for address in (it for by_vlan in found.values() for addresses in by_vlan.values() for it in addresses):
            ip_address(address)
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise ValueError(f"no gateways: {error}") from None
    return found
