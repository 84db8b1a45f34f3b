"""Captures of VIFs' frames: a row for each host of them. Its controller inserts it, takes what the host reports, and deletes it.

One rule: a host captures while its controller's beat goes on, and reports again only once its last report was taken: so nothing piles up
between them, and what comes meanwhile is counted where it is dropped.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import msgspec

from vnet.db.rows import Columns, PoolRow, to_columns
from vnet.grammar.declare import Declared, InvalidValue, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE

MAX_VIFS = 32  # of a capture
MAX_FRAME_BYTES = 9216 + 22  # the largest MTU, and an Ethernet header with two tags
MAX_SECONDS = 3600.0
MAX_RATE = 2000  # frames a second of a capture on one host
MAX_REPORTED = 128 * 1024  # bytes of frames in a report, before they are compressed
LEASE_S = 15.0  # a host that hears no beat for so long captures no more
REPORT_S = 1.0  # at most between two reports of a host, and so between two beats

_HEAD = struct.Struct("!BQHH")  # interface, nanoseconds since 1970, bytes that follow, of the whole frame
_MOST = MAX_REPORTED + MAX_FRAME_BYTES + _HEAD.size


class CapturedVif(msgspec.Struct, frozen=True, array_like=True):
    """A VIF, and the network that it is on."""

    id: str
    network: str


class CapturePlan(msgspec.Struct, frozen=True):
    """What a host is to capture. Each VIF has two interfaces: 2 n of what VIF n sends, 2 n + 1 of what it is sent.

    filter: in the language of pcap-filter(7), "" for all. snap: bytes of each frame. rate: frames a second.
    """

    vifs: list[CapturedVif]
    filter: str = ""
    snap: int = MAX_FRAME_BYTES
    rate: int = MAX_RATE


class Captured(NamedTuple):
    """A frame: its interface, the host's time in nanoseconds since 1970, its first bytes, and the length of the whole."""

    interface: int
    at_ns: int
    frame: bytes
    length: int


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """Of an interface since the host took the capture up: frames that came to it, and those that are in no report."""

    came: int = 0
    dropped: int = 0


class CaptureReport(msgspec.Struct, frozen=True):
    """A host's report. problem: why it captures nothing; else "".

    run: tells the agent's processes apart, each of which counts from 0. beat: the last that it heard, and heard and made: the host's time then
    and when it reported, in nanoseconds since 1970. until: frames up to that time are in this report or in former ones. here: the VIFs that it captures by now.
    ended: it captures no more, and this is the last report. frames: as `packed` writes them.
    """

    run: int = 0
    problem: str = ""
    beat: int = 0
    heard: int = 0
    made: int = 0
    until: int = 0
    here: list[str] = []
    counts: list[Counts] = []
    ended: bool = False
    frames: str = ""

    def encode(self) -> str:
        """The text for the row."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class CaptureRow(Declared):
    """A host's part in a capture, as its row has it: plan and report are JSON. A single server keeps what it holds of frames off its disk, a cluster does not."""

    NOUN: ClassVar[Noun] = Noun("capture", "captures", "capture", "Capture", "", key="id", second="host")
    TITLE: ClassVar[str] = "a capture"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    id: str = attr(LINE, "The capture.")
    host: str = attr(LINE, "The host that captures.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    plan: str = attr(LINE, "A CapturePlan; empty once the server was restarted.", default="", ephemeral=True)
    beat: int = attr(
        COUNT, "When its controller was last there, in microseconds since 1970; 0 to end it.", default=0, ephemeral=True
    )
    taken: int = attr(COUNT, "The number of the report that its controller has taken.", default=0, ephemeral=True)
    number: int = attr(COUNT, "Of the report, from 1.", default=0, ephemeral=True)
    report: str = attr(LINE, "A CaptureReport; empty until the host captures.", default="", ephemeral=True)


def columns_of(id: str, host: str, created: int, plan: CapturePlan, beat: int) -> Columns:
    """The columns of a row."""
    return to_columns(CaptureRow(id, host, created, text_of(plan), beat))


def text_of(plan: CapturePlan) -> str:
    """The text for the row."""
    return msgspec.json.encode(plan).decode()


def plan_of(row: PoolRow) -> CapturePlan:
    """The plan of a row. Raises InvalidValue for one that no host may carry out."""
    try:
        plan = msgspec.json.decode(row["plan"], type=CapturePlan)
    except msgspec.MsgspecError as error:
        raise InvalidValue("plan", f"no plan of a capture: {error}") from None
    if not 0 < len(plan.vifs) <= MAX_VIFS or len({vif.id for vif in plan.vifs}) < len(plan.vifs):
        raise InvalidValue("vifs", f"a capture has 1 to {MAX_VIFS} VIFs, each once")
    if not 14 <= plan.snap <= MAX_FRAME_BYTES or not 0 < plan.rate <= MAX_RATE:
        raise InvalidValue(
            "rate", f"a capture has up to {MAX_RATE} frames a second, of 14 to {MAX_FRAME_BYTES} bytes each"
        )
    return plan


def decode_report(text: str) -> CaptureReport:
    """The report of a row. An agent that writes nonsense captures nothing."""
    try:
        return msgspec.json.decode(text, type=CaptureReport)
    except msgspec.MsgspecError as error:
        return CaptureReport(problem=f"the agent's report is no report: {error}")


def packed(frames: Iterable[Captured]) -> str:
    """Frames as text."""
    data = b"".join(_HEAD.pack(it.interface, it.at_ns, len(it.frame), it.length) + it.frame for it in frames)
    return b64encode(zlib.compress(data, 1)).decode() if data else ""


def unpacked(text: str, interfaces: int) -> list[Captured]:
    """The frames of a text. Raises ValueError if `packed` did not write it, or for another interface than there are."""
    if not text:
        return []
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(b64decode(text, validate=True), _MOST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("it is cut short, or too long")
    found: list[Captured] = []
    at = 0
    while at < len(data):
        try:
            interface, at_ns, size, length = _HEAD.unpack_from(data, at)
        except struct.error:
            raise ValueError("it ends within a frame") from None
        at += _HEAD.size
        frame = data[at : at + size]
        if len(frame) < size or length < size or interface >= interfaces:
            raise ValueError("a frame is cut short, or of no interface")
        at += size
        found.append(Captured(interface, at_ns, frame, length))
    return found
