"""The file with a host's copy of the pool: what it has, and whether it may be used.

One rule: a copy is used whole or not at all, and only where it is beyond doubt this host's and the newest: of this host's name, its switch, the
pool that the switch's database names, and no older than the last one the switch's database knows of.

The file is two lines of JSON, CopyHeader and CopyBody, and a third with the SHA-256 of both.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ovsctl.ovsdb import AtomType, Row, Schema, Uuid
from vnet.agent.pool_identity import Followed
from vnet.util.files import replace_file

FORMAT = 1
NAME = "pool.copy"
MAX_BYTES = 256 * 1024 * 1024
# Rows that are encoded at a time: the turns of the agent's loop come in between.
SLICE, BETWEEN_SLICES_S = 32, 0.0005

CopiedRows = Mapping[str, Mapping[Uuid, Mapping[str, object]]]


class CopyRefused(Exception):
    """A copy that is not used; the text says why."""


class CopyHeader(msgspec.Struct, frozen=True, kw_only=True):
    """number: rises by one with each copy that a switch's host makes. written: milliseconds since 1970."""

    format: int
    schema: str
    host: str
    switch: str
    pool: str
    revision: int
    number: int
    written: int


class CopyBody(msgspec.Struct, frozen=True):
    """vifs, networks, groups: what the monitor's conditions named, so that the rows are all there are. tables: rows in wire form."""

    vifs: list[str]
    networks: list[str]
    groups: list[str]
    tables: dict[str, dict[str, dict[str, object]]]


class _Sketch(msgspec.Struct):
    format: int


@dataclass(frozen=True, slots=True)
class CopyOwner:
    """The host that a copy must be of. followed: the pool that its switch's database names; number: of its newest copy, by the same."""

    host: str
    switch: str
    followed: Followed | None
    number: int


# Written


def encode_body(schema: Schema, rows: Mapping[str, Mapping[Uuid, Row]], names: tuple[list[str], ...]) -> bytes:
    """The body, made in slices: it is for a thread beside the agent's loop."""
    tables = []
    for table, of_table in rows.items():
        encoded = b",".join(_encoded(schema, table, of_table))
        tables.append(msgspec.json.encode(table) + b":{" + encoded + b"}")
    fields = [b'"%s":%s' % (field, msgspec.json.encode(named)) for field, named in zip(_NAMED, names, strict=True)]
    return b"{" + b",".join([*fields, b'"tables":{' + b",".join(tables) + b"}"]) + b"}"


_NAMED = (b"vifs", b"networks", b"groups")


def _encoded(schema: Schema, table: str, rows: Mapping[Uuid, Row]) -> Iterator[bytes]:
    known = schema.table(table)
    # Most columns hold one text, number or boolean, which is its own wire form.
    composed = {
        name
        for name, column in known.columns.items()
        if not column.type.is_scalar or column.type.key.type is AtomType.UUID
    }
    for count, (uuid, row) in enumerate(rows.items(), 1):
        wire: dict[str, object] = {**row.as_dict()}
        for column in composed & wire.keys():
            wire[column] = known.encode(column, wire[column], partial=True)
        yield msgspec.json.encode(uuid) + b":" + msgspec.json.encode(wire)
        if count % SLICE == 0:
            time.sleep(BETWEEN_SLICES_S)


def write_copy(directory: Path, header: CopyHeader, body: bytes) -> None:
    """Puts a copy in the place of the one before, on disk. Raises OSError, CopyRefused."""
    content = msgspec.json.encode(header) + b"\n" + body + b"\n"
    content += hashlib.sha256(content).hexdigest().encode() + b"\n"
    if len(content) > MAX_BYTES:
        raise CopyRefused(f"it has {len(content)} bytes, and at most {MAX_BYTES} are kept")
    make_directory(directory)
    replace_file(directory / NAME, content, 0o600)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Makes the directory, for its owner alone, or checks it. Raises OSError, CopyRefused."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check(directory, os.lstat(directory), stat.S_ISDIR, 0o022)


# Read


def read_copy(directory: Path, owner: CopyOwner, newest: Schema) -> tuple[CopyHeader, CopyBody]:
    """The copy. newest: the schema of this version. Raises CopyRefused, FileNotFoundError if there is none."""
    path = directory / NAME
    try:
        content = _content(directory, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CopyRefused(f"{path}: {error.strerror}") from None
    header_line, _, rest = content.partition(b"\n")
    body, _, digest = rest.rstrip(b"\n").rpartition(b"\n")
    sound = hashlib.sha256(header_line + b"\n" + body + b"\n").hexdigest().encode() == digest
    if not sound:
        raise CopyRefused(f"{path} is damaged: its content does not have the SHA-256 that its last line says")
    try:
        sketch = msgspec.json.decode(header_line, type=_Sketch)
        if sketch.format != FORMAT:
            raise CopyRefused(f"{path} is of format {sketch.format}, and this version reads {FORMAT}")
        header = msgspec.json.decode(header_line, type=CopyHeader)
        _check_schema(path, header, newest)
        _check_owner(path, header, owner)
        return header, msgspec.json.decode(body, type=CopyBody)
    except msgspec.DecodeError as error:
        raise CopyRefused(f"{path} is damaged: {error}") from None


def _content(directory: Path, path: Path) -> bytes:
    _check(directory, os.lstat(directory), stat.S_ISDIR, 0o022)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        _check(path, found, stat.S_ISREG, 0o077)
        if found.st_size > MAX_BYTES:
            raise CopyRefused(f"{path} has {found.st_size} bytes, and at most {MAX_BYTES} are read")
        return file.read(MAX_BYTES)


def _check(path: Path, found: os.stat_result, is_kind: object, forbidden: int) -> None:
    if not callable(is_kind) or not is_kind(found.st_mode):
        raise CopyRefused(f"{path} is a link, or not what it should be")
    if found.st_uid != os.geteuid():
        raise CopyRefused(f"{path} is user {found.st_uid}'s: chown it to user {os.geteuid()}")
    if found.st_mode & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise CopyRefused(f"{path} has mode {mode:04o}, and is for its owner alone: chmod it to {mode & ~0o077:04o}")


def _check_schema(path: Path, header: CopyHeader, newest: Schema) -> None:
    parts = header.schema.split(".")
    version = tuple(int(part) for part in parts) if all(map(str.isdecimal, parts)) else ()
    if version[:1] != newest.version_tuple[:1] or version > newest.version_tuple:
        raise CopyRefused(f"{path} is of schema {header.schema}, and this version knows {newest.version}")


def _check_owner(path: Path, header: CopyHeader, owner: CopyOwner) -> None:
    if header.host != owner.host:
        raise CopyRefused(f"{path} is that of host {header.host}, and this is {owner.host}")
    if header.switch != owner.switch:
        raise CopyRefused(f"{path} is that of switch {header.switch}, and this host's is {owner.switch}")
    if owner.followed is None:
        raise CopyRefused(
            f"{path} is of pool {header.pool}, and the switch's database says that this host belongs to none"
        )
    if header.pool != owner.followed.id:
        raise CopyRefused(f"{path} is of pool {header.pool}, and this host belongs to pool {owner.followed.id}")
    if header.number < owner.number:
        raise CopyRefused(
            f"{path} is older than what the switch had: it is number {header.number}, and the last was {owner.number}"
        )
