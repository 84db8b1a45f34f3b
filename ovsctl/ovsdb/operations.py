"""The operations of a transaction as values (RFC 7047 §5.2).

The one rule: an operation is checked against the schema as it is encoded, so our mistakes never
reach the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from .errors import BadValue, DecodeError
from .schema import AtomType, ColumnType, Json, Schema, TableSchema
from .values import NamedUuid, Uuid, Value, is_uuid

Clause: TypeAlias = tuple[str, str, object]
"""(column, function, value): function is one of ==, !=, <, <=, >, >=, includes, excludes."""

Where: TypeAlias = Sequence[Clause]
"""In an operation all clauses must hold; no clauses means every row."""

Mutation: TypeAlias = tuple[str, str, object]
"""(column, mutator, value): mutator is one of +=, -=, *=, /=, %=, insert, delete."""

FUNCTIONS = frozenset(("==", "!=", "<", "<=", ">", ">=", "includes", "excludes"))
_ORDERINGS = frozenset(("<", "<=", ">", ">="))
_ARITHMETIC = frozenset(("+=", "-=", "*=", "/=", "%="))
_NUMERIC = (AtomType.INTEGER, AtomType.REAL)


def by_uuid(uuid: Uuid | NamedUuid) -> tuple[Clause, ...]:
    """The `where` that chooses one row."""
    return (("_uuid", "==", uuid),)


def encode_clause(table: TableSchema, clause: Clause) -> Json:
    """<condition> of RFC 7047 §5.1; raises UnknownColumn, BadValue."""
    column, function, value = clause
    type_ = table.column(column).type
    if function not in FUNCTIONS:
        raise BadValue(f"a function of {', '.join(sorted(FUNCTIONS))}", function, table.name, column)
    if function in _ORDERINGS and (type_.key.type not in _NUMERIC or not (type_.is_scalar or type_.is_optional)):
        raise BadValue(f"an integer or real column for {function}", value, table.name, column)
    return [column, function, table.encode(column, value, partial=function in ("includes", "excludes"))]


def encode_where(table: TableSchema, where: Where) -> list[Json]:
    return [encode_clause(table, clause) for clause in where]


def encode_mutation(table: TableSchema, mutation: Mutation) -> Json:
    """<mutation> of RFC 7047 §5.1; raises UnknownColumn, BadValue."""
    column, mutator, value = mutation
    type_ = table.column(column).type
    if mutator in _ARITHMETIC:
        return [column, mutator, _encode_operand(table, column, type_, mutator, value)]
    if mutator not in ("insert", "delete"):
        raise BadValue("a mutator of +=, -=, *=, /=, %=, insert, delete", mutator, table.name, column)
    if type_.is_scalar:
        raise BadValue(f"a set or map column for {mutator}", value, table.name, column)
    if mutator == "delete" and type_.is_map and not isinstance(value, Mapping):
        keys = ColumnType(type_.key, None, 0, None)  # pairs are deleted by their keys
        try:
            return [column, mutator, keys.encode(value)]
        except BadValue as error:
            raise error.at(table.name, column) from None
    return [column, mutator, table.encode(column, value, partial=True)]


def _encode_operand(table: TableSchema, column: str, type_: ColumnType, mutator: str, value: object) -> Json:
    numeric = type_.key.type in _NUMERIC and not type_.is_map
    number = (int, float) if type_.key.type is AtomType.REAL else int
    if not numeric or isinstance(value, bool) or not isinstance(value, number):
        raise BadValue(f"a number and a numeric column for {mutator}", value, table.name, column)
    # Not the column's type: its range binds the result, not the operand.
    return value


def _expect(json: Json, member: str) -> Json:
    if not isinstance(json, dict) or member not in json:
        raise DecodeError(f"expected an object with {member!r} as an operation's result")
    return json[member]


def _count(json: Json) -> int:
    count = _expect(json, "count")
    if not isinstance(count, int) or isinstance(count, bool):
        raise DecodeError("expected a number of rows as an operation's result")
    return count


class Insert(msgspec.Struct, frozen=True):
    """Insert one row; its result is the row's UUID.

    `uuid_name` lets other operations of the transaction refer to it with NamedUuid. `uuid` asks for
    a UUID of our choice (ovsdb-server(7) §5.2.1, since 3.0).
    """

    table: str
    row: Mapping[str, object] = msgspec.field(default_factory=dict)
    uuid_name: str | None = None
    uuid: Uuid | None = None

    def encode(self, schema: Schema) -> Json:
        table = schema.table(self.table)
        json: dict[str, Json] = {"op": "insert", "table": self.table, "row": table.encode_row(self.row)}
        if self.uuid_name is not None:
            json["uuid-name"] = NamedUuid(self.uuid_name).name
        if self.uuid is not None:
            if not is_uuid(self.uuid):
                raise BadValue("a UUID", self.uuid, self.table, "_uuid")
            json["uuid"] = self.uuid
        return json

    def decode(self, schema: Schema, json: Json) -> Uuid:
        return str(schema.table(self.table).decode("_uuid", _expect(json, "uuid")))


class Select(msgspec.Struct, frozen=True):
    """Read rows; its result is a list of dicts from column to Python value. `columns` None is all."""

    table: str
    where: Where = ()
    columns: Sequence[str] | None = None

    def encode(self, schema: Schema) -> Json:
        table = schema.table(self.table)
        json: dict[str, Json] = {
            "op": "select",
            "table": self.table,
            "where": encode_where(table, self.where),
        }
        if self.columns is not None:
            json["columns"] = [table.column(name).name for name in self.columns]
        return json

    def decode(self, schema: Schema, json: Json) -> list[dict[str, Value]]:
        rows = _expect(json, "rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DecodeError("expected rows as a select's result")
        return [schema.table(self.table).decode_row(row) for row in rows]


class Update(msgspec.Struct, frozen=True):
    """Set columns of the rows that match; its result is how many."""

    table: str
    where: Where
    row: Mapping[str, object]

    def encode(self, schema: Schema) -> Json:
        table = schema.table(self.table)
        where, row = encode_where(table, self.where), table.encode_row(self.row)
        return {"op": "update", "table": self.table, "where": where, "row": row}

    def decode(self, schema: Schema, json: Json) -> int:
        return _count(json)


class Mutate(msgspec.Struct, frozen=True):
    """Change columns of the rows that match from their present values; its result is how many rows."""

    table: str
    where: Where
    mutations: Sequence[Mutation]

    def encode(self, schema: Schema) -> Json:
        table = schema.table(self.table)
        return {
            "op": "mutate",
            "table": self.table,
            "where": encode_where(table, self.where),
            "mutations": [encode_mutation(table, mutation) for mutation in self.mutations],
        }

    def decode(self, schema: Schema, json: Json) -> int:
        return _count(json)


class Delete(msgspec.Struct, frozen=True):
    """Delete the rows that match; its result is how many."""

    table: str
    where: Where

    def encode(self, schema: Schema) -> Json:
        where = encode_where(schema.table(self.table), self.where)
        return {"op": "delete", "table": self.table, "where": where}

    def decode(self, schema: Schema, json: Json) -> int:
        return _count(json)


class _NoResult(msgspec.Struct, frozen=True):
    """An operation that returns nothing."""

    def decode(self, schema: Schema, json: Json) -> None:
        return None


class Wait(_NoResult, frozen=True):
    """Go on only when `columns` of the rows that match are (until "==") or are not ("!=") `rows`.

    With `timeout_ms` 0 the transaction fails at once with WaitTimedOut; None waits without end.
    """

    table: str
    where: Where
    columns: Sequence[str]
    rows: Sequence[Mapping[str, object]]
    until: str = "=="
    timeout_ms: int | None = 0

    def encode(self, schema: Schema) -> Json:
        table = schema.table(self.table)
        if self.until not in ("==", "!="):
            raise BadValue('"==" or "!=" for until', self.until)
        json: dict[str, Json] = {
            "op": "wait",
            "table": self.table,
            "where": encode_where(table, self.where),
            "columns": [table.column(name).name for name in self.columns],
            "until": self.until,
            "rows": [table.encode_row(row) for row in self.rows],
        }
        if self.timeout_ms is not None:
            json["timeout"] = self.timeout_ms
        return json


class Commit(_NoResult, frozen=True):
    """With `durable`, answer only when the transaction is on disk."""

    durable: bool = True

    def encode(self, schema: Schema) -> Json:
        return {"op": "commit", "durable": self.durable}


class Abort(_NoResult, frozen=True):
    """Undo the transaction: it always ends with the error Aborted."""

    def encode(self, schema: Schema) -> Json:
        return {"op": "abort"}


class Comment(_NoResult, frozen=True):
    """A text for the database's log."""

    comment: str

    def encode(self, schema: Schema) -> Json:
        return {"op": "comment", "comment": self.comment}


class Assert(_NoResult, frozen=True):
    """Fail with NotOwner unless this connection holds the lock."""

    lock: str

    def encode(self, schema: Schema) -> Json:
        return {"op": "assert", "lock": self.lock}


Operation: TypeAlias = Insert | Select | Update | Mutate | Delete | Wait | Commit | Abort | Comment | Assert
