"""Watching for marked frames: a row per host that watches. Its controller inserts it, releases frames in it, and deletes it.

One rule: a host reports that it watches only once its switch does, and no frame is released before all have reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from vnet.compile import marked_fields
from vnet.db.rows import Columns, PoolRow, to_columns
from vnet.grammar.declare import Declared, InvalidValue, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Integer, ListOf
from vnet.objects.words import COUNT, LINE

MAX_FRAMES = 256
MAX_BYTES = 64 * 1024  # of all frames together
MAX_SEEN = 4096  # sightings that a host reports, of all frames together


class Marked(msgspec.Struct, frozen=True):
    """A marked frame in hexadecimal, and the id of the VIF that it is to be sent as."""

    frame: str
    vif: str


class WatchPlan(msgspec.Struct, frozen=True):
    """The part of a watch that all its hosts have: the hosts that watch, and the frames that they watch for."""

    hosts: list[str]
    frames: list[Marked]


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A frame by its number. place: the port that it came in by, or the id of the VIF that would have got it.

    changed: the frame's bytes in hexadecimal where they were not as it was sent, else empty.
    """

    number: int
    place: str
    changed: str = ""


class Report(msgspec.Struct):
    """A host's report. problem: the reason that it does not watch. sent, refused: the frames released to it, refused with the reason.

    left_off: the number of sightings besides.
    """

    problem: str = ""
    sent: list[int] = []
    refused: dict[int, str] = {}
    came: list[Seen] = []
    caught: list[Seen] = []
    left_off: int = 0

    def encode(self) -> str:
        """The text for the row."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class WatchRow(Declared):
    """A host's part in a watch, as its row has it: the plan and the report are JSON."""

    NOUN: ClassVar[Noun] = Noun("watch", "watches", "watch", "Watch", "", key="id", second="host")
    TITLE: ClassVar[str] = "a watch"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    id: str = attr(LINE, "The watch.")
    host: str = attr(LINE, "The host that watches.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    plan: str = attr(LINE, "A Plan; empty once the server was restarted.", ephemeral=True)
    release: frozenset[int] = attr(
        ListOf(Integer("a frame's number", 0, MAX_FRAMES - 1, bounded=False), "a list of frames", as_set=True),
        "The frames that the host may send by now.",
        default=frozenset(),
        ephemeral=True,
    )
    report: str = attr(LINE, "A Report; empty until the host watches.", default="", ephemeral=True)


@dataclass(frozen=True, slots=True)
class Watch:
    """A host's part in a watch. created: milliseconds since 1970. frames: as they are sent."""

    id: str
    host: str
    created: int
    hosts: frozenset[str]
    frames: tuple[bytes, ...]
    senders: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.frames) <= MAX_FRAMES or sum(map(len, self.frames)) > MAX_BYTES:
            raise InvalidValue("frames", f"a watch has 1 to {MAX_FRAMES} frames of {MAX_BYTES} bytes in all")
        for frame in self.frames:
            marked_fields(frame)


def watch_from_row(row: PoolRow) -> Watch:
    """The watch of a row. Raises InvalidValue for one that no host may take part in."""
    try:
        plan = msgspec.json.decode(row["plan"], type=WatchPlan)
        frames = tuple(bytes.fromhex(marked.frame) for marked in plan.frames)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidValue("plan", f"no plan of a watch: {error}") from None
    senders = tuple(marked.vif for marked in plan.frames)
    return Watch(row["id"], row["host"], row["created"], frozenset(plan.hosts), frames, senders)


def columns_of(id: str, host: str, created: int, hosts: Sequence[str], frames: Sequence[Marked]) -> Columns:
    """The columns of a row."""
    plan = msgspec.json.encode(WatchPlan(sorted(hosts), list(frames))).decode()
    return to_columns(WatchRow(id, host, created, plan))


def decode_report(text: str) -> Report:
    """The report of a row. An agent that writes nonsense does not watch."""
    try:
        return msgspec.json.decode(text, type=Report)
    except msgspec.MsgspecError as error:
        return Report(problem=f"the agent's report is no report: {error}")
