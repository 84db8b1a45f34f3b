"""The schema of the pool database, made from the declarations of its objects.

One rule: nobody edits vnet.ovsschema. `python -m vnet.db.schema` writes it, and a test holds it against the declarations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vnet.db.accounting import HostAccount, VifAccount
from vnet.db.captures import CaptureRow
from vnet.db.handovers import Handover
from vnet.db.health import HealthQuery
from vnet.db.history import HistoryRecord
from vnet.db.probes import Probe
from vnet.db.roles import role_tables
from vnet.db.rows import SCHEMA_NAME
from vnet.db.rule_queries import RuleQuery
from vnet.db.tables import TABLES, ObjectTable, table_of
from vnet.db.traffic_queries import TrafficQuery
from vnet.db.watches import WatchRow
from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE

VERSION = "1.42.0"
COLUMN_DEPTH = 4  # of maps, in the schema: those of one column stand on its line


@dataclass(frozen=True, slots=True)
class Leadership(Declared):
    """The row that a controller takes over by its lock, so that no other writes as leader."""

    NOUN: ClassVar[Noun] = Noun("leadership", "leadership", "leadership", "Leader", "", key="", single=True)
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    term: str = attr(LINE, "The term of the controller that leads.", default="")
    beat: int = attr(COUNT, "How often it has written; 0 of one that does not count.", default=0, ephemeral=True)


def schema() -> dict[str, Any]:
    """The <database-schema> (RFC 7047 §3.2)."""
    tables = [
        *TABLES.values(),
        *map(
            table_of,
            (
                Leadership,
                Probe,
                RuleQuery,
                HealthQuery,
                TrafficQuery,
                WatchRow,
                CaptureRow,
                Handover,
                HistoryRecord,
                HostAccount,
                VifAccount,
            ),
        ),
    ]
    made = {table.name: _table(table) for table in tables}
    return {"name": SCHEMA_NAME, "version": VERSION, "tables": made | role_tables()}


def _table(table: ObjectTable) -> dict[str, Any]:
    noun = table.declared.NOUN
    columns: dict[str, Any] = {table.owner: {"type": "string"}} if table.owner else {}
    for cell in table.cells:
        columns[cell.column] = {"type": cell.type} | ({"ephemeral": True} if cell.ephemeral else {})
    made: dict[str, Any] = {"columns": columns}
    if noun.single:
        made["maxRows"] = 1
    if table.key:
        made["indexes"] = [list(table.key), *([name] for name in noun.unique)]
    return {**made, "isRoot": True}


def text() -> str:
    """The schema as the file has it: a line for each column."""
    return "\n".join(_lines(schema(), 0)) + "\n"


def _lines(value: Any, depth: int) -> Iterator[str]:
    """JSON with a line of its own for each member, down to the columns."""
    if not isinstance(value, dict) or depth == COLUMN_DEPTH:
        yield json.dumps(value)
        return
    yield "{"
    for at, (name, member) in enumerate(value.items()):
        first, *rest = _lines(member, depth + 1)
        lines = [f"  {json.dumps(name)}: {first}", *(f"  {line}" for line in rest)]
        lines[-1] += "," if at < len(value) - 1 else ""
        yield from lines
    yield "}"


if __name__ == "__main__":
    Path(__file__).with_name("vnet.ovsschema").write_text(text())
