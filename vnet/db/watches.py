"""Watching for marked frames: a row per host that watches, which its controller opens, writes what may be sent by now, and takes away.

One rule: a host says that it watches only once its switch does, and nothing is released before all have said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from vnet.compile import marked_fields
from vnet.db.probes import Row
from vnet.objects import InvalidValue

MAX_FRAMES = 256
MAX_BYTES = 64 * 1024  # of all frames together
MAX_SEEN = 4096  # sightings that a host tells, of all frames together


class Marked(msgspec.Struct, frozen=True):
    """A marked frame in hexadecimal, and the id of the VIF that it is to be sent as."""

    frame: str
    vif: str


class Plan(msgspec.Struct, frozen=True):
    """What all hosts of a watch know: who watches, and for which frames."""

    hosts: list[str]
    frames: list[Marked]


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A frame by its number. where: the port that it came in by, or the id of the VIF that would have got it.

    changed: the frame's bytes in hexadecimal where they were not as it was sent, else empty.
    """

    number: int
    where: str
    changed: str = ""


class Report(msgspec.Struct):
    """What a host says. problem: why it does not watch. sent, refused: of the frames that were released to it, with why not.

    left_off: how many sightings there were besides.
    """

    problem: str = ""
    sent: list[int] = []
    refused: dict[int, str] = {}
    came: list[Seen] = []
    caught: list[Seen] = []
    left_off: int = 0

    def encode(self) -> str:
        """As the row holds it."""
        return msgspec.json.encode(self).decode()


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


def watch_from_row(row: Row) -> Watch:
    """The watch that a row holds. Raises InvalidValue for one that no host may take part in."""
    try:
        plan = msgspec.json.decode(row["plan"], type=Plan)
        frames = tuple(bytes.fromhex(marked.frame) for marked in plan.frames)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidValue("plan", f"no plan of a watch: {error}") from None
    senders = tuple(marked.vif for marked in plan.frames)
    return Watch(row["id"], row["host"], row["created"], frozenset(plan.hosts), frames, senders)


def columns_of(id: str, host: str, created: int, hosts: Sequence[str], frames: Sequence[Marked]) -> Mapping[str, Any]:
    """The columns of a row."""
    plan = msgspec.json.encode(Plan(sorted(hosts), list(frames))).decode()
    return {"id": id, "host": host, "created": created, "plan": plan}


def decode_report(text: str) -> Report:
    """What a row holds. An agent that writes nonsense does not watch."""
    try:
        return msgspec.json.decode(text, type=Report)
    except msgspec.MsgspecError as error:
        return Report(problem=f"the agent's report is no report: {error}")
