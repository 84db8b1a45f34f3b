"""Questions to hosts: what would your switch do with this frame? One row each, asked by a controller, answered by an agent.

One rule: a question says nothing about what the answer should be; comparing is for who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any, Protocol

import msgspec

from ovsctl.openflow.fields import CT_STATE_BITS
from vnet.objects import InvalidValue

MAX_FRAME_BYTES = 9216 + 22  # the largest MTU, and an Ethernet header with two tags
MIN_FRAME_BYTES = 14
MAX_TEXT_BYTES = 64 * 1024
MAX_ASKED = 128  # questions at once, to all hosts together
FORGOTTEN_AFTER_MS = 60_000  # a question that nobody took away again


class Row(Protocol):
    """What ovsctl hands out, or a dict."""

    def __getitem__(self, column: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Probe:
    """One question. Exactly one of vif and device says where the frame comes in: a VIF's id, or the name of another port.

    tun_id, tun_src, tun_dst: what a frame from a tunnel came with; tun_src is "" for any other. frame: hexadecimal.
    tracked: what the connection tracker says each time that it is asked, as "new+trk est+rpl+trk".
    created: milliseconds since 1970. answer: "" until answered, then an Answer as JSON.
    """

    id: str
    host: str
    created: int
    frame: str
    vif: str = ""
    device: str = ""
    tun_id: int = 0
    tun_src: str = ""
    tun_dst: str = ""
    tracked: str = ""
    answer: str = ""

    def __post_init__(self) -> None:
        if bool(self.vif) == bool(self.device):
            raise InvalidValue("vif", "a probe needs either a VIF or another port that the frame comes in by")
        if len(self.frame) > 2 * MAX_FRAME_BYTES:
            raise InvalidValue("frame", f"the frame is longer than {MAX_FRAME_BYTES} bytes")
        try:
            size = len(bytes.fromhex(self.frame))
        except ValueError as error:
            raise InvalidValue("frame", f"the frame is no hexadecimal number: {error}") from None
        try:
            versions = {ip_address(address).version for address in (self.tun_src, self.tun_dst) if address}
        except ValueError as error:
            raise InvalidValue("tunnel", str(error)) from None
        if size < MIN_FRAME_BYTES:
            raise InvalidValue("frame", f"a frame of {size} bytes has no Ethernet header")
        if bool(self.tun_src) != bool(self.tun_dst) or len(versions) > 1:
            raise InvalidValue("tunnel", "a tunnel has the addresses of both ends, of one IP version")
        if not set(self.tracked.replace("+", " ").split()) <= set(CT_STATE_BITS):
            raise InvalidValue("tracked", f"{self.tracked[:60]!r} is not what a connection tracker says")
        if not 0 <= self.tun_id < 1 << 32:
            raise InvalidValue("tunnel", f"{self.tun_id} is no tunnel key")


class Answer(msgspec.Struct, frozen=True):
    """What ofproto/trace said, and the numbers of the switch's ports. problem: why there is no answer; else empty."""

    text: str = ""
    vifs: dict[str, str] = {}
    devices: dict[str, str] = {}
    problem: str = ""

    def encode(self) -> str:
        """As the row holds it."""
        return msgspec.json.encode(self).decode()


def decode_answer(text: str) -> Answer:
    """What a row holds. An agent that writes nonsense has given no answer."""
    try:
        return msgspec.json.decode(text, type=Answer)
    except msgspec.MsgspecError as error:
        return Answer(problem=f"the agent's answer is no answer: {error}")


def probe_from_row(row: Row) -> Probe:
    """The question that a row holds. Raises InvalidValue for one that nobody may ask."""
    return Probe(**{field.name: row[field.name] for field in fields(Probe)})


def columns_of(probe: Probe) -> Mapping[str, object]:
    """The columns of its row."""
    return {field.name: getattr(probe, field.name) for field in fields(Probe)}
