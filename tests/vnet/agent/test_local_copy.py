"""A copy of the pool is used whole or not at all, and only where it is beyond doubt the one. On plain files."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ovsctl.ovsdb import Schema
from vnet.agent import local_copy
from vnet.agent.local_copy import (
    FORMAT,
    NAME,
    CopyHeader,
    CopyOwner,
    CopyRefused,
    encode_body,
    make_directory,
    read_copy,
    write_copy,
)
from vnet.agent.pool_identity import Followed
from vnet.db.rows import SCHEMA_TEXT

SCHEMA = Schema.parse(SCHEMA_TEXT)
OWNER = CopyOwner("xen1", "switch-1", Followed("pool-1", 7), 3)
HEADER = CopyHeader(
    format=FORMAT, schema=SCHEMA.version, host="xen1", switch="switch-1", pool="pool-1", revision=7, number=3, written=0
)
NAMES = (["web1/0"], ["tenant"], ["web"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


def write(directory: Path, **changes: object) -> None:
    header = msgspec.structs.replace(HEADER, **changes)
    write_copy(directory, header, encode_body(SCHEMA, {"Vif": {}}, NAMES))


def test_it_is_read_as_it_was_written(directory: Path) -> None:
    write(directory)
    header, body = read_copy(directory, OWNER, SCHEMA)
    assert header == HEADER
    assert (body.vifs, body.networks, body.groups, body.tables) == (*NAMES, {"Vif": {}})


def test_it_is_for_its_owner_alone(directory: Path) -> None:
    write(directory)
    assert [path.stat().st_mode & 0o777 for path in (directory, directory / NAME)] == [0o700, 0o600]


def later(number: int) -> str:
    return ".".join(map(str, (SCHEMA.version_tuple[0], SCHEMA.version_tuple[1] + number, 0)))


def format_of_later(directory: Path) -> None:
    """A format that has other fields: it is told from a damaged one."""
    content = b'{"format":%d,"parts":[]}\n{}\n' % (FORMAT + 1)
    (directory / NAME).write_bytes(content + hashlib.sha256(content).hexdigest().encode() + b"\n")


def flip(directory: Path) -> None:
    content = bytearray((directory / NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / NAME).write_bytes(content)


def cut(directory: Path) -> None:
    content = (directory / NAME).read_bytes()
    (directory / NAME).write_bytes(content[: len(content) // 2])


def link(directory: Path) -> None:
    (directory / NAME).rename(directory / "elsewhere")
    (directory / NAME).symlink_to(directory / "elsewhere")


def pipe(directory: Path) -> None:
    (directory / NAME).unlink()
    os.mkfifo(directory / NAME, 0o600)


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit": (flip, "is damaged: its content does not have the SHA-256"),
    "cut off": (cut, "is damaged"),
    "empty": (lambda d: (d / NAME).write_bytes(b""), "is damaged"),
    "another format": (format_of_later, f"is of format {FORMAT + 1}, and this version reads {FORMAT}"),
    "later schema": (lambda d: write(d, schema=later(1)), f"is of schema {later(1)}, and this version knows"),
    "no version": (lambda d: write(d, schema="1.x"), "is of schema 1.x"),
    "host": (lambda d: write(d, host="xen2"), "is that of host xen2, and this is xen1"),
    "switch": (lambda d: write(d, switch="switch-2"), "is that of switch switch-2, and this host's is switch-1"),
    "pool": (lambda d: write(d, pool="pool-2"), "is of pool pool-2, and this host belongs to pool pool-1"),
    "older": (lambda d: write(d, number=2), "is older than what the switch had: it is number 2, and the last was 3"),
    "readable": (lambda d: (d / NAME).chmod(0o644), "has mode 0644, and is for its owner alone: chmod it to 0600"),
    "writable directory": (lambda d: d.chmod(0o777), "has mode 0777"),
    "link": (link, "Too many levels of symbolic links"),
    "pipe": (pipe, "is a link, or not what it should be"),
    "another's": (lambda d: os.chown(d / NAME, 1, 1), "is user 1's: chown it to user 0"),
    "another's directory": (lambda d: os.chown(d, 1, 1), "is user 1's"),
}


@pytest.mark.parametrize("harm", HARM)
def test_it_is_refused_by_name(directory: Path, harm: str) -> None:
    act, text = HARM[harm]
    write(directory)
    act(directory)
    with pytest.raises(CopyRefused) as refused:
        read_copy(directory, OWNER, SCHEMA)
    assert text in str(refused.value)
    assert str(directory) in str(refused.value)


def test_a_host_that_belongs_to_no_pool_uses_none(directory: Path) -> None:
    write(directory)
    with pytest.raises(CopyRefused, match="belongs to none"):
        read_copy(directory, replace(OWNER, followed=None), SCHEMA)


def test_an_older_schema_is_known(directory: Path) -> None:
    write(directory, schema=f"{SCHEMA.version_tuple[0]}.0.0")
    assert read_copy(directory, OWNER, SCHEMA)[0].host == "xen1"


def test_one_that_is_too_large_is_neither_written_nor_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(directory)
    monkeypatch.setattr(local_copy, "MAX_BYTES", 100)
    with pytest.raises(CopyRefused, match="at most 100 are read"):
        read_copy(directory, OWNER, SCHEMA)
    with pytest.raises(CopyRefused, match="at most 100 are kept"):
        write(directory, number=4)
    monkeypatch.undo()
    assert read_copy(directory, OWNER, SCHEMA)[0].number == HEADER.number


def test_a_write_that_fails_leaves_the_one_before(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(directory)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(directory, number=4)
    assert read_copy(directory, OWNER, SCHEMA)[0].number == HEADER.number
    assert [path.name for path in directory.iterdir()] == [NAME]


# For each line it forks a process that writes until it is killed.
WRITERS = """
import os, sys
from pathlib import Path
import msgspec
from vnet.agent.local_copy import CopyHeader, write_copy
header = msgspec.json.decode(sys.argv[2], type=CopyHeader)
body = b'{"vifs":[],"networks":[],"groups":[],"tables":{}}' + b" " * 1_000_000
for _ in sys.stdin:
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    for number in range(3, 1_000_000):
        write_copy(Path(sys.argv[1]), msgspec.structs.replace(header, number=number), body)
        os.write(1, b"%d %d\\n" % (os.getpid(), number))  # whole, whenever it is killed
"""


def test_killed_at_any_moment_of_a_write_a_whole_copy_is_left(directory: Path) -> None:
    command = [sys.executable, "-c", WRITERS, str(directory), msgspec.json.encode(HEADER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        last = 0
        for kills in range(8):
            writers.stdin.write("\n")
            found: list[tuple[int, int]] = []
            while len(found) < 3 + kills:
                pid, number = map(int, writers.stdout.readline().split())
                if pid != last:  # the one before may have printed more
                    found.append((pid, number))
            time.sleep(kills * 0.002)
            last, number = found[-1]
            os.kill(last, signal.SIGKILL)
            header, _ = read_copy(directory, replace(OWNER, number=number), SCHEMA)
            assert header.number >= number
        writers.stdin.close()


def test_nothing_is_written_where_others_may(directory: Path) -> None:
    make_directory(directory)
    directory.chmod(0o777)
    with pytest.raises(CopyRefused, match="mode 0777"):
        write(directory)
