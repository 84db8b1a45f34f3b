"""Database files that are damaged, against what a real ovsdb-server makes of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ovsctl.ovsdb.log_file import parse_log

ROWS = 12
SCHEMA = {
    "name": "Sample",
    "version": "1.0.0",
    "tables": {"Item": {"columns": {"name": {"type": "string"}, "size": {"type": "integer"}}, "isRoot": True}},
}


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def insert(name: str) -> str:
    return json.dumps(["Sample", {"op": "insert", "table": "Item", "row": {"name": name, "size": len(name)}}])


@pytest.fixture(scope="module")
def whole(ovs: None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of ROWS transactions with a row each."""
    directory = tmp_path_factory.mktemp("log")
    database, schema = directory / "sample.db", directory / "schema"
    schema.write_text(json.dumps(SCHEMA))
    run("ovsdb-tool", "create", database, schema)
    for number in range(ROWS):
        run("ovsdb-tool", "transact", database, insert(f"row{number}"))
    return database.read_bytes()


def served(data: bytes, path: Path) -> int | None:
    """How many rows ovsdb-server serves of a file; None where it refuses."""
    path.write_bytes(data)
    query = json.dumps(["Sample", {"op": "select", "table": "Item", "where": []}])
    asked = f"ovsdb-client transact unix:{path}.sock '{query}'"
    server = ["ovsdb-server", "-vconsole:off", f"--remote=punix:{path}.sock", f"--unixctl={path}.ctl", f"--run={asked}"]
    done = subprocess.run([*server, path], capture_output=True, text=True, check=False)
    return len(json.loads(done.stdout)[0]["rows"]) if done.stdout else None


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def test_a_whole_file(whole: bytes) -> None:
    found = parse_log(whole)
    assert (found.problem, found.damaged, found.torn, found.end) == ("", False, False, len(whole))
    contents: list[dict[str, Any]] = [record.content() for record in found.records]
    assert contents[0]["name"] == "Sample"
    assert len(contents) == ROWS + 1
    assert all(record.date_ms is not None for record in found.records[1:])


def test_a_flipped_bit_in_the_middle(whole: bytes, tmp_path: Path) -> None:
    records = parse_log(whole).records
    data = flipped(whole, records[5].end - 20)
    found = parse_log(data)
    assert served(data, tmp_path / "db") == 4  # of 12, and nothing but a line in its log says so
    assert (len(found.records), len(found.behind), found.end) == (5, ROWS + 1 - 6, records[5].start)
    assert found.damaged
    assert "SHA-1" in found.problem
    (uuid,) = records[5].content()["Item"]
    assert uuid in found.uuids_in_damage()


def test_a_flipped_bit_in_the_last_record_is_no_torn_end(whole: bytes) -> None:
    """It is as long as it is to be, so it was whole once, and may have been acknowledged."""
    assert parse_log(flipped(whole, len(whole) - 20)).damaged


def test_every_shorter_file_is_torn_or_whole(whole: bytes, tmp_path: Path) -> None:
    ends = {record.end for record in parse_log(whole).records}
    second = parse_log(whole).records[1]
    for size in range(second.start, len(whole)):
        found = parse_log(whole[:size])
        assert (found.problem == "", found.torn, found.damaged) == (size in ends, size not in ends, False), size
    short = whole[: second.end + 30]
    assert served(short, tmp_path / "db") == len(parse_log(short).records) - 1


def test_an_end_that_reads_as_zeros_is_torn(whole: bytes, tmp_path: Path) -> None:
    """A file system may have noted the new length before the data."""
    last = parse_log(whole).records[-1]
    for start in (last.start, last.start + 30, last.end - 10):
        data = whole[:start] + bytes(len(whole) - start)
        assert parse_log(data).torn
        assert served(data, tmp_path / "db") == ROWS - 1
    assert parse_log(whole + bytes(4096)).torn


def test_zeros_that_records_follow_are_damage(whole: bytes) -> None:
    records = parse_log(whole).records
    assert parse_log(whole[: records[3].start] + bytes(100) + whole[records[3].start + 100 :]).damaged


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"OVSDB JSON 5 abc\n{}\n\n"])
def test_what_is_no_database(data: bytes) -> None:
    assert parse_log(data).damaged


def test_any_flipped_bit_is_found(whole: bytes, tmp_path: Path) -> None:
    """Wherever ovsdb-server serves fewer rows than there were, or refuses, the file counts as damaged."""
    random = Random(3)
    for _ in range(30):
        data = flipped(whole, random.randrange(len(whole)), 1 << random.randrange(8))
        assert parse_log(data).damaged is (served(data, tmp_path / "db") != ROWS)
