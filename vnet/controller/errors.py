"""Refusals of the controller. One rule: each has its reason, the place at fault, and its HTTP status."""

from __future__ import annotations

from collections.abc import Sequence

from vnet import api


class Refused(Exception):
    """A call that is not carried out; nothing has changed.

    code: for programs, as "vif-exists". where: the field, the object or the host at fault; empty for the whole call.
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
    """The call can never be right."""

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


class InsufficientStorage(Refused):
    """The pool database cannot write: its disk is full. Nothing has changed; reads, packets and what is there go on."""

    status = 507


class TimedOut(Refused):
    """The wait was too short. Steps that are done stay done; call again to go on."""

    status = 504
