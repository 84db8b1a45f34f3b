"""The file of a database, ovsdb(5), read as ovsdb-server reads it, and what is wrong with one that it would not read to its end. Pure.

A file is a log of records, each two lines: a header with the length and the SHA-1 hash of the second, and JSON. ovsdb-server reads
until a record is not whole. It serves what it has read by then, with no more than a warning, and cuts the rest off before it
writes (ovsdb/log.c, ovsdb_log_read and ovsdb_log_write).

One rule: that is right for a torn end and for nothing else. Records are appended, and a durable transaction is acknowledged once
fsync(2) has returned, so what a loss of power leaves of a record is at the end and was acknowledged to nobody as durable: the file is short of
what the header says, or has zeros where data did not get to the disk. A record that is wrong in another way, or that whole ones
follow, was whole once: the file is damaged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

_HEADER = re.compile(rb"OVSDB (JSON|CLUSTER) (\d{1,15}) ([0-9a-fA-F]{40})\n")
_MAX_HEADER_BYTES = 128  # of ovsdb-server's buffer for it
_UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record that is whole. start and end: offsets in bytes, of its header and behind its JSON. text: the JSON."""

    start: int
    end: int
    text: memoryview

    def content(self) -> dict[str, Any]:
        """Its JSON object; empty where it is none."""
        try:
            found = msgspec.json.decode(self.text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def date_ms(self) -> int | None:
        """When it was written, in milliseconds since 1970; None where it does not say."""
        date = self.content().get("_date")
        return date if isinstance(date, int) else None


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file: the whole records that it begins with, and those that follow a place where none can be read.

    size: in bytes. problem: the reason why the record at `end` is not whole, "" where the file ends there. zeros: whether it has zeros.
    """

    size: int
    records: tuple[LogRecord, ...]
    problem: str
    zeros: bool
    behind: tuple[LogRecord, ...]
    damage: bytes

    @property
    def end(self) -> int:
        """The offset up to which ovsdb-server reads."""
        return self.records[-1].end if self.records else 0

    @property
    def torn(self) -> bool:
        """Whether it ends with what is left of a record whose writing was cut short: ovsdb-server drops that, and nothing is lost."""
        return bool(self.problem) and bool(self.records) and not self.behind and (self.zeros or "ends" in self.problem)

    @property
    def damaged(self) -> bool:
        """Whether ovsdb-server would serve less than was acknowledged."""
        return bool(self.problem) and not self.torn

    def uuids_in_damage(self) -> frozenset[str]:
        """The UUIDs that can be read where no record can: mostly those of rows."""
        return frozenset(found.decode() for found in _UUID.findall(self.damage))


def parse_log(data: bytes) -> LogFile:
    """The records of a database file. An empty file has none, and is not whole."""
    records, problem = [], "" if data else "it is empty"
    at = 0
    while at < len(data):
        found = _record(data, at)
        if isinstance(found, str):
            problem = found
            break
        records.append(found)
        at = found.end
    behind = tuple(_after(data, at)) if problem else ()
    damage = data[at : behind[0].start if behind else len(data)]
    return LogFile(len(data), tuple(records), problem, b"\0" in damage, behind, damage)


def _record(data: bytes, at: int) -> LogRecord | str:
    """The record at an offset, or the reason why there is none."""
    header = _HEADER.match(data, at)
    if header is None:
        short = len(data) - at < _MAX_HEADER_BYTES and b"\n" not in data[at:]
        return "the file ends within its header" if short else "its header cannot be read"
    start, length = header.end(), int(header[2])
    if start + length > len(data):
        return f"the file ends within it: {len(data) - start} of {length} bytes are there"
    text = memoryview(data)[start : start + length]
    if hashlib.sha1(text, usedforsecurity=False).hexdigest().encode() != header[3].lower():
        return f"its {length} bytes do not have the SHA-1 hash that its header says"
    return LogRecord(at, start + length, text)


def _after(data: bytes, at: int) -> Iterator[LogRecord]:
    """The whole records behind an offset at which there is none."""
    for header in _HEADER.finditer(data, at + 1):
        if header.start() >= at and isinstance(found := _record(data, header.start()), LogRecord):
            at = found.end
            yield found
