"""Questions to hosts: how does your switch treat this frame? A row each: a controller asks, an agent answers.

One rule: a question has no expected answer; whoever asks compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from ipaddress import ip_address
from typing import Any, ClassVar

import msgspec

from ovsctl.openflow.fields import CT_STATE_BITS
from vnet.db.replies import HostReply
from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE

MAX_FRAME_BYTES = 9216 + 22  # the largest MTU, and an Ethernet header with two tags
MIN_FRAME_BYTES = 14
MAX_TEXT_BYTES = 64 * 1024
FORGOTTEN_AFTER_MS = 60_000  # a question that nobody took away again


def _volatile(doc: str, default: Any = "") -> Any:
    """A text that the database keeps off its disk."""
    return attr(LINE, doc, default=default, ephemeral=True)


@dataclass(frozen=True, slots=True)
class Probe(Declared):
    """A question. Exactly one of vif and device is the port that the frame comes in by: a VIF's id, or the name of another port."""

    NOUN: ClassVar[Noun] = Noun("probe", "probes", "probe", "Probe", "", key="id")
    TITLE: ClassVar[str] = "a probe"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    id: str = attr(LINE, "Its id.")
    host: str = attr(LINE, "The host that is asked.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    frame: str = _volatile("The frame in hexadecimal.", MISSING)
    vif: str = _volatile("The VIF that sends the frame.")
    device: str = _volatile("The port that the frame comes in by.")
    tun_id: int = attr(COUNT, "The key that a frame from a tunnel came with.", default=0, ephemeral=True)
    tun_src: str = _volatile("The sender of a frame from a tunnel; empty for other frames.")
    tun_dst: str = _volatile("The receiver of a frame from a tunnel.")
    tracked: str = _volatile(
        "The connection tracker's states, one for each time that it is asked: new+trk est+rpl+trk."
    )
    answer: str = _volatile("Empty until answered, then an Answer as JSON.")

    def flaws(self) -> Iterator[Flaw]:
        if bool(self.vif) == bool(self.device):
            yield Flaw("probe", "vif", "a probe needs either a VIF or another port that the frame comes in by")
        yield from self._frame_flaws()
        try:
            versions = {ip_address(address).version for address in (self.tun_src, self.tun_dst) if address}
        except ValueError as error:
            yield Flaw("probe", "tunnel", str(error))
            return
        if bool(self.tun_src) != bool(self.tun_dst) or len(versions) > 1:
            yield Flaw("probe", "tunnel", "a tunnel has the addresses of both ends, of one IP version")
        if not set(self.tracked.replace("+", " ").split()) <= set(CT_STATE_BITS):
            yield Flaw("probe", "tracked", f"{self.tracked[:60]!r} is no state of a connection tracker")
        if self.tun_id >= 1 << 32:
            yield Flaw("probe", "tunnel", f"{self.tun_id} is no tunnel key")

    def _frame_flaws(self) -> Iterator[Flaw]:
        if len(self.frame) > 2 * MAX_FRAME_BYTES:
            yield Flaw("probe", "frame", f"the frame is longer than {MAX_FRAME_BYTES} bytes")
            return
        try:
            size = len(bytes.fromhex(self.frame))
        except ValueError as error:
            yield Flaw("probe", "frame", f"the frame is no hexadecimal number: {error}")
            return
        if size < MIN_FRAME_BYTES:
            yield Flaw("probe", "frame", f"a frame of {size} bytes has no Ethernet header")


class Answer(HostReply, frozen=True):
    """The text of ofproto/trace, and the numbers of the switch's ports."""

    text: str = ""
    vifs: dict[str, str] = msgspec.field(default_factory=dict)
    devices: dict[str, str] = msgspec.field(default_factory=dict)
