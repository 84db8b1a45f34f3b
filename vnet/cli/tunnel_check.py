"""Tunnels of a pool tried out: a marked frame each path between every two hosts that have VIFs on a tunnel network together.

One rule: no guest gets a frame. It is an ARP reply as the one VIF's to the other, which no policy drops, marked and caught as
those of 'vnet trace --live' (docs/live.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from vnet.objects import NetworkType
from vnet.objects.carriers import Way

if TYPE_CHECKING:
    from vnet import api
    from vnet.client import Client

ATTEMPTS = 2  # the first frame to a host may be lost while its MAC is asked for
AT_ONCE = 100  # of the 256 frames of a call
ETH_ARP, REPLY = 0x0806, 2


class TunnelPath(NamedTuple):
    """A path through a tunnel: the VIF on the one host and the one on the other, and their network."""

    network: str
    source: api.Vif
    to: api.Vif

    @property
    def hosts(self) -> tuple[str, str]:
        return str(self.source.place.host), str(self.to.place.host)


class TriedPath(NamedTuple):
    """came: whether a frame came; refusal: the reason if none was sent, "" otherwise."""

    path: TunnelPath
    came: bool
    refusal: str


def paths(networks: Sequence[api.Network], vifs: Sequence[api.Vif]) -> list[TunnelPath]:
    """A path from each host to each other one on which there can be one, by the encapsulation of its network."""
    found: dict[tuple[str, str, str], TunnelPath] = {}
    types = {net.name: net.type for net in networks if NetworkType(net.type).carrier.way is Way.TUNNEL}
    usable: dict[str, dict[str, api.Vif]] = {}  # by network and host
    for vif in vifs:
        if vif.network in types and vif.place.state == "ready" and vif.place.host and vif.trunk is None and ipv4(vif):
            usable.setdefault(vif.network, {}).setdefault(vif.place.host, vif)
    for network, of_host in sorted(usable.items()):
        for source, to in permutations(sorted(of_host), 2):
            found.setdefault((types[network], source, to), TunnelPath(network, of_host[source], of_host[to]))
    return [found[key] for key in sorted(found)]


def ipv4(vif: api.Vif) -> str:
    """Its first IPv4 address, "" if it has none."""
    return next((address for address in vif.addresses if ":" not in address), "")


def tried(client: Client, wanted: Sequence[TunnelPath], random: Random) -> Iterator[TriedPath]:
    """Sends over each path. Raises the errors of the client."""
    for first in range(0, len(wanted), AT_ONCE):
        yield from _tried(client, wanted[first : first + AT_ONCE], random)


def _tried(client: Client, batch: Sequence[TunnelPath], random: Random) -> Iterator[TriedPath]:
    from vnet import api  # noqa: PLC0415
    from vnet.compile import mark  # noqa: PLC0415

    calls = [
        api.PacketCall(
            frame=mark(_reply(path), random.getrandbits(64)).hex(),
            vif=path.source.id,
            to=path.to.id,
            round=number,
            expect=[path.to.id],
        )
        for number in range(ATTEMPTS)
        for path in batch
    ]
    answer = client.packets(api.PacketsCall(packets=calls))
    for at, path in enumerate(batch):
        packets = answer.packets[at :: len(batch)] if answer.packets else []
        came = any(sighting.host == path.hosts[1] for packet in packets for sighting in (*packet.came, *packet.caught))
        sent = any(packet.sent for packet in packets)
        refusal = (
            "" if sent else "; ".join(answer.problems) or next((packet.why for packet in packets), "nothing was sent")
        )
        yield TriedPath(path, came, refusal)


def _reply(path: TunnelPath) -> bytes:
    """An ARP reply (RFC 826) with the source's own addresses."""
    from ipaddress import IPv4Address  # noqa: PLC0415

    own, other = (bytes.fromhex(vif.mac.replace(":", "")) for vif in (path.source, path.to))
    arp = b"\x00\x01\x08\x00\x06\x04" + REPLY.to_bytes(2, "big")
    sender, target = (IPv4Address(ipv4(vif)).packed for vif in (path.source, path.to))
    return other + own + ETH_ARP.to_bytes(2, "big") + arp + own + sender + other + target
