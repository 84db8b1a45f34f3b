"""The pool database's file, looked at before ovsdb-server reads it: a damaged one is not served in part.

One rule: a refusal names the objects that are lost as far as they can be read, and the ways back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ovsctl.ovsdb.log_file import LogFile, LogRecord, parse_log
from vnet.db.errors import DamagedDatabase
from vnet.db.tables import TABLES
from vnet.objects.state import CONFIGURED

log = logging.getLogger("vnet.controller")

LISTED = 10  # objects that a refusal names

Names = dict[str, str]  # a row's UUID to its object in words


def check_file(path: Path, *, clustered: bool) -> None:
    """Raises DamagedDatabase for a file of which ovsdb-server would serve, and keep, a part only."""
    found = parse_log(path.read_bytes())
    if found.torn:
        left = found.size - found.end
        log.warning(
            "%s: a write was cut short that nobody was told of as done: %s bytes at its end are dropped", path, left
        )
    elif found.damaged:
        ways = _ways_back_to_cluster() if clustered else _ways_back(path, found)
        raise DamagedDatabase(f"{path} {_damage(found)}. {ways}")


def _damage(found: LogFile) -> str:
    number = len(found.records) + 1
    text = f"is damaged at byte {found.end} of {found.size}, in record {number}: {found.problem}"
    if not found.records:
        return f"{text}. It is not served, nothing of it can be"
    lost = len(found.behind) + 1
    objects = ", ".join(lost_objects(found)) or "no object that can be read"
    return (
        f"{text}. It is not served: ovsdb-server would serve the pool as it was {_when(found.records)}, and drop "
        f"{lost} record{'s' if lost > 1 else ''} for good at the next write. They are of: {objects}"
    )


def lost_objects(found: LogFile) -> list[str]:
    """The configured objects that records from the damage on are of, in words; of many the first, and their number."""
    names: Names = {}
    for record in (*found.records, *found.behind):
        names |= _names(record)
    uuids = {uuid for record in found.behind for uuid in _uuids(record)} | found.uuids_in_damage()
    objects = sorted({names[uuid] for uuid in uuids if uuid in names})
    more = len(objects) - LISTED
    return [*objects[:LISTED], f"{more} more"] if more > 0 else objects


def _uuids(record: LogRecord) -> Iterator[str]:
    for rows in record.content().values():
        if isinstance(rows, dict):
            yield from rows


def _names(record: LogRecord) -> Names:
    """The objects of a record's new rows."""
    content, names = record.content(), {}
    for table in (TABLES[name] for name in content.keys() & TABLES.keys()):
        if table.declared not in CONFIGURED:
            continue
        for uuid, row in content[table.name].items():
            if isinstance(row, dict) and all(isinstance(row.get(column), str) for column in table.key):
                names[uuid] = f"{table.declared.NOUN.text} {' '.join(row[column] for column in table.key)}"
    return names


def _ways_back_to_cluster() -> str:
    return "The other servers have it all: take this one out of the cluster and let it join anew (docs/cluster.md)"


def _ways_back(path: Path, found: LogFile) -> str:
    copies = _listed(_copies(path))
    ways = f"Put back a copy{f': {copies}' if copies else ''}"
    if len(found.records) > 1:
        kept = f"{path}.damaged"
        ways += f"; or give up what is lost: mv {path} {kept} && head -c {found.end} {kept} > {path}"
    return f"{ways}. Hosts go on as they are programmed (docs/operate.md)"


def _copies(path: Path) -> Iterator[tuple[Path, LogFile]]:
    """The whole files of databases beside one, the newest first."""
    beside = [other for other in path.parent.glob(f"{path.name}.*") if other.is_file()]
    read = [(other, parse_log(other.read_bytes())) for other in beside if ".~lock~" not in other.name]
    whole = [(other, found) for other, found in read if found.records and not found.damaged]
    yield from sorted(whole, key=lambda copy: -(_date_ms(copy[1].records) or 0))


def _listed(copies: Iterable[tuple[Path, LogFile]]) -> str:
    return ", ".join(f"{path} (the pool {_when(found.records)})" for path, found in copies)


def _when(records: Iterable[LogRecord]) -> str:
    date = _date_ms(records)
    return (
        f"at {datetime.fromtimestamp(date / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        if date is not None
        else "when it was made"
    )


def _date_ms(records: Iterable[LogRecord]) -> int | None:
    return next((record.date_ms for record in reversed([*records]) if record.date_ms is not None), None)
