"""What comes by a host's uplinks while all hosts look at their VLANs at once. Pure.

One rule: each host sends small frames and one as large as the MTU on each VLAN by each of its NICs, and notes which of the others it hears where. Who of all is at fault, nobody of them decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from vnet.db.health import StatedUplink
from vnet.util.frames import tagged
from vnet.util.hello_frames import HostHello, hello_frame

HEADER_BYTES: Final = 14
ROUNDS: Final = 3  # of frames, of which one is enough
MAX_SENDERS, MAX_STRANGE = 1024, 64


@dataclass(slots=True)
class VlanCheck:
    """vlans: by uplink and tag the MTU. heard: by uplink and tag, by sender the size of the largest frame, without a tag."""

    me: str
    vlans: Mapping[str, Mapping[int, int]]
    links: Mapping[str, tuple[str, ...]]  # by uplink, this host's NICs
    heard: dict[tuple[str, int], dict[tuple[str, str], int]] = field(default_factory=dict)
    strange: dict[str, set[tuple[str, str, int, int]]] = field(default_factory=dict)

    def frames(self, pool: bytes) -> Iterator[tuple[str, str, bytes]]:
        """A round of frames, each with the uplink and the NIC that it leaves by."""
        for uplink, mtus in sorted(self.vlans.items()):
            for link in self.links.get(uplink, ()):
                for tag, mtu in sorted(mtus.items()):
                    hello = HostHello(pool, self.me, link, tag=tag)
                    for size in (0, mtu + HEADER_BYTES):
                        yield uplink, link, tagged(hello_frame(hello, size), tag)

    def hear(self, uplink: str, hello: HostHello, tag: int, size: int) -> None:
        """A hello came by an uplink, on a VLAN, in a frame of so many bytes without its tag."""
        sender = hello.host, hello.link
        if hello.host == self.me or tag not in self.vlans.get(uplink, {}):
            return
        if hello.tag != tag:
            found = self.strange.setdefault(uplink, set())
            if len(found) < MAX_STRANGE:
                found.add((*sender, hello.tag, tag))
            return
        sizes = self.heard.setdefault((uplink, tag), {})
        if sender in sizes or len(sizes) < MAX_SENDERS:
            sizes[sender] = max(size, sizes.get(sender, 0))

    def stated(self) -> tuple[StatedUplink, ...]:
        """What came of each uplink that this host has."""
        return tuple(
            self._stated(uplink, mtus) for uplink, mtus in sorted(self.vlans.items()) if self.links.get(uplink)
        )

    def _stated(self, uplink: str, mtus: Mapping[int, int]) -> StatedUplink:
        by_tag = {tag: self.heard.get((uplink, tag), {}) for tag in sorted(mtus)}
        senders = sorted({sender for heard in by_tag.values() for sender in heard})
        missing = {tag: tuple(at for at, it in enumerate(senders) if it not in heard) for tag, heard in by_tag.items()}
        narrow = {
            tag: tuple(at for at, it in enumerate(senders) if 0 < heard.get(it, 0) < mtus[tag] + HEADER_BYTES)
            for tag, heard in by_tag.items()
        }
        return StatedUplink(
            uplink,
            tuple(by_tag),
            tuple(self.links[uplink]),
            tuple(senders),
            {tag: at for tag, at in missing.items() if at},
            {tag: at for tag, at in narrow.items() if at},
            tuple(sorted(self.strange.get(uplink, ()))),
        )
