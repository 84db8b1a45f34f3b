"""Why the controller refuses. One rule: each says what is wrong, where, and with which HTTP status it is answered."""

from __future__ import annotations

from collections.abc import Sequence

from vnet import api


class Refused(Exception):
    """A call that is not carried out; nothing has changed.

    code: for programs, as "vif-exists". where: the field, object or host it is about; empty where it is all of it.
    problems: every error of a document or a body.
    """

    status = 400
    problems: Sequence[api.InputProblem] = ()

    def __init__(self, code: str, message: str, where: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where


class Invalid(Refused):
    """What was sent can never be right."""

    status = 400


class Unauthorized(Refused):
    status = 401


class NotFound(Refused):
    status = 404


class Conflict(Refused):
    """It cannot be done as the pool is now; it may be later, or with other arguments."""

    status = 409


class TooLarge(Refused):
    status = 413


class Unavailable(Refused):
    """The pool database does not answer. Packets flow all the same."""

    status = 503


class TimedOut(Refused):
    """What was waited for did not come in time. What was done so far stays; call again to go on."""

    status = 504
