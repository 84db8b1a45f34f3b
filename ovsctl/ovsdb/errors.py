"""Every error of the OVSDB client, in one tree.

The one rule: our own misuse (`UsageError`), the peer's fault (`ProtocolError`), the server's refusal
(`ServerError`) and try-later (`ConnectionLost`) are different branches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class OvsdbError(Exception):
    """Base of everything that this package raises."""


# --- our misuse ---------------------------------------------------------------------------------


class UsageError(OvsdbError, ValueError):
    """The caller asked for something that the schema or the protocol does not have."""


class UnknownTable(UsageError):
    """The schema has no such table."""

    def __init__(self, database: str, table: str) -> None:
        super().__init__(f"database {database} has no table {table!r}")
        self.database, self.table = database, table


class UnknownColumn(UsageError):
    """The table has no such column."""

    def __init__(self, table: str, column: str) -> None:
        super().__init__(f"table {table} has no column {column!r}")
        self.table, self.column = table, column


class UnmonitoredColumn(UsageError):
    """A monitor's condition would change to a column that it does not have: ovsdb-server 3.1.0 dies of that (SIGSEGV)."""

    def __init__(self, table: str, column: str) -> None:
        super().__init__(
            f"the monitor of table {table} does not have column {column!r}, so no condition may change to it"
        )
        self.table, self.column = table, column


class BadValue(UsageError):
    """A Python value does not fit the column's type."""

    def __init__(self, expected: str, value: object, table: str = "", column: str = "") -> None:
        where = f"{table}.{column}: " if table else ""
        super().__init__(f"{where}expected {expected}, got {_shown(value)}")
        self.expected, self.value, self.table, self.column = expected, value, table, column

    def at(self, table: str, column: str) -> BadValue:
        """The same error with its place named."""
        return BadValue(self.expected, self.value, table, column)


class BadRemote(UsageError):
    """A remote is not of the form unix:FILE, tcp:HOST:PORT or ssl:HOST:PORT."""


# --- the peer's fault ---------------------------------------------------------------------------


class ProtocolError(OvsdbError):
    """The peer sent something that is not OVSDB. The connection is of no more use."""


class MessageTooLong(ProtocolError):
    """One message of the peer exceeds the limit that the session was given."""


class DecodeError(ProtocolError):
    """JSON of the peer that does not have the shape that RFC 7047 or the schema gives it."""


# --- connections --------------------------------------------------------------------------------


class ConnectionLost(OvsdbError):
    """The connection ended before the answer came. The request changed nothing on the server."""


class NotConnected(ConnectionLost):
    """There is no connection now, so nothing was sent: safe to try again later."""


class ConnectFailed(ConnectionLost):
    """No remote could be used in the time given. `reasons` says why, by remote."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        listed = "; ".join(f"{remote}: {why}" for remote, why in reasons.items())
        super().__init__(f"no remote could be used: {listed}")
        self.reasons = dict(reasons)


class OutcomeUnknown(OvsdbError):
    """A transaction was sent and no answer came: it may or may not be in the database.

    It is never repeated by the client. Read the database and decide.
    """


class NotLeader(ConnectionLost):
    """Locks are granted by the cluster's leader only, and this connection is to another server."""


# --- the server's refusal -----------------------------------------------------------------------


class ServerError(OvsdbError):
    """The server answered with an error. `error` is its short name, `details` its explanation."""

    def __init__(self, error: str, details: str = "", about: str = "") -> None:
        super().__init__(": ".join(part for part in (about, error, details) if part))
        self.error, self.details = error, details


class RequestError(ServerError):
    """A whole request was refused: unknown database, unknown method, bad syntax (RFC 7047 §4.1)."""


class UnknownDatabase(RequestError):
    """The server has no such database (RFC 7047 §4.1.2)."""


class Canceled(RequestError):
    """The request was cancelled (RFC 7047 §4.1.4)."""


class TransactError(ServerError):
    """A transaction was refused, and nothing of it is in the database (RFC 7047 §4.1.3).

    `index` and `operation` name the operation at fault (None where it failed as a whole and the
    details tell no row of ours); `table`, `column` and `row` are filled in as far as the server's
    details name them.
    """

    def __init__(
        self,
        error: str,
        details: str = "",
        *,
        index: int | None = None,
        operation: object = None,
        table: str | None = None,
        column: str | None = None,
        row: str | None = None,
    ) -> None:
        place = "transaction" if index is None else f"operation {index} ({type(operation).__name__})"
        named = [f"table {table}" if table else "", f"column {column}" if column else ""]
        named.append(f"row {row}" if row else "")
        super().__init__(error, details, " ".join([place, *filter(None, named)]))
        self.index, self.operation, self.table, self.column, self.row = index, operation, table, column, row


class ResourcesExhausted(TransactError):
    """`resources exhausted`: the server lacks memory or other resources."""


class InputOutputError(TransactError):
    """`I/O error`: the server could not write the transaction to its disk."""


class DuplicateUuidName(TransactError):
    """`duplicate uuid-name`: two inserts of one transaction use the same name."""


class DuplicateUuid(TransactError):
    """`duplicate uuid`: a row with the requested UUID exists (an extension of ovsdb-server)."""


class ConstraintViolation(TransactError):
    """`constraint violation`: a value, a count, an index or a table's maxRows is violated."""


class ReferentialIntegrityViolation(TransactError):
    """`referential integrity violation`: a strong reference would point to no row."""


class DomainError(TransactError):
    """`domain error`: an arithmetic mutation without a result, such as a division by zero."""


class RangeError(TransactError):
    """`range error`: an arithmetic mutation's result does not fit."""


class WaitTimedOut(TransactError):
    """`timed out`: the condition of a wait did not come true in time."""


class NotSupported(TransactError):
    """`not supported`: a durable commit that this server cannot give."""


class Aborted(TransactError):
    """`aborted`: the transaction had an abort operation."""


class NotOwner(TransactError):
    """`not owner`: an assert names a lock that this client does not hold."""


class PermissionDenied(TransactError):
    """`permission error`: the role of this client does not allow it (ovsdb-server's RBAC)."""


class NotAllowed(TransactError):
    """`not allowed`: the server or the table is read-only."""


_BY_NAME: dict[str, type[TransactError]] = {
    "resources exhausted": ResourcesExhausted,
    "I/O error": InputOutputError,
    "duplicate uuid-name": DuplicateUuidName,
    "duplicate uuid": DuplicateUuid,
    "constraint violation": ConstraintViolation,
    "referential integrity violation": ReferentialIntegrityViolation,
    "domain error": DomainError,
    "range error": RangeError,
    "timed out": WaitTimedOut,
    "not supported": NotSupported,
    "aborted": Aborted,
    "not owner": NotOwner,
    "permission error": PermissionDenied,
    "not allowed": NotAllowed,
}
_REQUEST_BY_NAME: dict[str, type[RequestError]] = {"unknown database": UnknownDatabase, "canceled": Canceled}

_ROW = re.compile(r"\b(?:row|UUID) ([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})")
_COLUMN = re.compile(r"\bcolumns? \"?([A-Za-z_]\w*)\"?")
_TABLE = re.compile(r"\bTable ([A-Za-z_]\w*) column|\"([A-Za-z_]\w*)\" table|delete ([A-Za-z_]\w*) row")


def request_error(error: str, details: str, about: str) -> RequestError:
    """The typed error of a refused request."""
    return _REQUEST_BY_NAME.get(error, RequestError)(error, details, about)


def transact_error(
    error: str, details: str, index: int | None, operations: Sequence[object], inserted: Mapping[str, int]
) -> TransactError:
    """The typed error of a refused transaction.

    `inserted` maps the UUID of each row that the transaction inserted to its operation, so that an
    error found only at commit still names the operation at fault.
    """
    rows = _ROW.findall(details)
    row = next((uuid for uuid in rows if uuid in inserted), rows[0] if rows else None)
    if index is None and row is not None:
        index = inserted.get(row)
    operation = operations[index] if index is not None else None
    table = _named(_TABLE, details) or getattr(operation, "table", None)
    column = _named(_COLUMN, details) or _only_column(operation)
    kind = _BY_NAME.get(error, TransactError)
    return kind(error, details, index=index, operation=operation, table=table, column=column, row=row)


def _named(pattern: re.Pattern[str], details: str) -> str | None:
    match = pattern.search(details)
    return match and next(group for group in match.groups() if group is not None)


def _only_column(operation: object) -> str | None:
    """The column of an operation that changes just one: the server's details often leave it out."""
    columns = {mutation[0] for mutation in getattr(operation, "mutations", ())}
    columns |= set(getattr(operation, "row", ()))
    return columns.pop() if len(columns) == 1 else None


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 120 else text[:117] + "..."
