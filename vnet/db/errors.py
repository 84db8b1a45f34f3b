"""What can go wrong with the pool database, in one tree."""

from __future__ import annotations


class PoolError(Exception):
    """Base of everything that this package raises."""


class WriteConflict(PoolError):
    """A write was refused because the pool is not as its maker saw it; nothing of it is in the database.

    code: stale-revision, row-changed, missing-reference, in-use or exists. subject: the object it is about.
    """

    def __init__(self, code: str, message: str, subject: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.subject = subject


class SchemaMismatch(PoolError):
    """The database's schema is newer than this program knows, or is not ours."""


class PoolUnreachable(PoolError):
    """The pool database does not answer now."""


class DamagedDatabase(PoolUnreachable):
    """The pool database's file is damaged, so it is not served."""


class DatabaseFull(PoolError):
    """The pool database cannot write to its disk, or has no memory left. Nothing has changed."""
