"""Hellos: the frames by which hosts of a pool find out whether frames pass between them, through tunnels and on VLANs.

One rule: a frame is hostile until it is parsed, and none of a guest gets where hellos are looked for. They go to a group address of our own, with an Ethernet type for
local experiments (IEEE 802-2014 §9.2.3), so a switch that knows nothing of them floods them on their VLAN and no further.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final, NamedTuple

from vnet.util.frames import MINIMUM_FRAME_BYTES, TAG_TYPES, mac_bytes

HELLO_GROUP: Final = "03:76:6e:65:74:00"  # locally administered, a group (802-2014 §8.2)
HELLO_TYPE: Final = 0x88B5
MAGIC: Final = b"vnet"
FORMAT: Final = 1
HEARD: Final = 1  # a flag
MAX_NAME_BYTES: Final = 255
_HEAD: Final = struct.Struct("!4sBB8sIIQQQHHBB")


class HostHello(NamedTuple):
    """What a host says of itself, and to the host that it sends to of what came from there.

    pool: which pool, hashed. host: the sender. link: the NIC or bridge that it was sent by, "" through a tunnel. interval_ms: until its next one. sent_us: when it was sent,
    by the sender's clock. hears: whether frames come from the receiver. Of the receiver's last frame: echo_us its sent_us, came_us when it came by the sender's clock; 0
    without one. largest: the size of the largest of late, in bytes. tag: the VLAN that it was sent on, as `vlan_of` has it; 0 through a tunnel.
    """

    pool: bytes
    host: str
    link: str = ""
    sequence: int = 0
    interval_ms: int = 0
    sent_us: int = 0
    hears: bool = False
    echo_us: int = 0
    came_us: int = 0
    largest: int = 0
    tag: int = 0


def pool_mark(pool_id: str) -> bytes:
    """What tells hellos of one pool from those of another on the same VLANs."""
    return blake2b(pool_id.encode(), digest_size=8).digest()


def hello_mac(host: str, link: str) -> str:
    """The source of a host's hellos by one of its links: locally administered, so that no switch takes a NIC's own MAC to be elsewhere."""
    return (b"\x06" + blake2b(f"{host}/{link}".encode(), digest_size=5).digest()).hex(":")


def hello_frame(hello: HostHello, size: int = 0) -> bytes:
    """The frame of a hello, without a tag. size: in bytes, without the FCS; what is less than it needs counts as that."""
    host, link = hello.host.encode()[:MAX_NAME_BYTES], hello.link.encode()[:MAX_NAME_BYTES]
    head = _HEAD.pack(
        MAGIC, FORMAT, HEARD if hello.hears else 0, hello.pool, hello.sequence & 0xFFFFFFFF, hello.interval_ms & 0xFFFFFFFF, hello.sent_us,
        hello.echo_us, hello.came_us, min(hello.largest, 0xFFFF), hello.tag & 0x1FFF, len(host), len(link),
    )  # fmt: skip
    frame = mac_bytes(HELLO_GROUP) + mac_bytes(hello_mac(hello.host, hello.link)) + HELLO_TYPE.to_bytes(2, "big")
    return (frame + head + host + link).ljust(max(size, MINIMUM_FRAME_BYTES), b"\0")


def read_hello(frame: bytes) -> HostHello | None:
    """The hello in a frame, with one VLAN tag at most; None for any other frame, and for one of a format that is not known."""
    at = 16 if frame[12:14] in TAG_TYPES else 12
    if frame[at : at + 2] != HELLO_TYPE.to_bytes(2, "big") or len(frame) < at + 2 + _HEAD.size:
        return None
    magic, version, flags, pool, sequence, interval_ms, sent_us, echo_us, came_us, largest, tag, of_host, of_link = (
        _HEAD.unpack_from(frame, at + 2)
    )
    names = frame[at + 2 + _HEAD.size :]
    if magic != MAGIC or version != FORMAT or len(names) < of_host + of_link:
        return None
    try:
        host, link = names[:of_host].decode(), names[of_host : of_host + of_link].decode()
    except UnicodeDecodeError:
        return None
    return HostHello(
        pool, host, link, sequence, interval_ms, sent_us, bool(flags & HEARD), echo_us, came_us, largest, tag
    )
