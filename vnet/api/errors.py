"""The errors of calls, in one tree: a controller raises a refusal, and its clients raise it again. One rule: each has its HTTP status."""

from __future__ import annotations

from collections.abc import Sequence

from vnet import api


class ClientError(Exception):
    """Base of everything that the clients raise."""


class Unreachable(ClientError):
    """The controller, or the pool database behind it, does not answer. Whether a call was carried out is open: repeat it."""


class BadAnswer(ClientError):
    """The answer is not one of a controller of this version."""


class Refused(ClientError):
    """A call that is not carried out; nothing has changed.

    code: for programs, as "vif-exists". where: the field, the object or the host at fault; empty for the whole call.
    problems: every error of a document or a body.
    """

    status = 400

    def __init__(self, code: str, message: str, where: str = "", problems: Sequence[api.InputProblem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.problems = problems

    @property
    def problem(self) -> api.Problem:
        """The refusal in JSON's words."""
        return api.Problem(code=self.code, message=self.message, where=self.where, problems=list(self.problems))


class Invalid(Refused):
    """The call can never be right."""


class Unauthorized(Refused):
    """No token, or a wrong one."""

    status = 401


class Forbidden(Refused):
    """The caller is known, and its role or scope does not have this. `where`: the role that it takes, or what the caller is bound to."""

    status = 403


class NotFound(Refused):
    """There is no such object."""

    status = 404


class Conflict(Refused):
    """It cannot be done as the pool is now; it may be later, or with other arguments."""

    status = 409


class PreconditionFailed(Conflict):
    """The object, or what the call would do, is another by now than the one that the call names. Nothing has changed."""

    status = 412


class TooLarge(Invalid):
    """The body is larger than this call's may be."""

    status = 413


class Unavailable(Refused):
    """The pool database does not answer. Packets flow all the same. Clients raise Unreachable for it."""

    status = 503


class NoRoom(Refused):
    """The pool database cannot write: its disk is full. Nothing has changed; reads, packets and what is there go on."""

    status = 507


class WrongServer(Refused):
    """The call is for a server of another name (RFC 9110 section 15.5.20)."""

    status = 421


class TimedOut(Refused):
    """The wait was too short. Steps that are done stay done; call again to go on."""

    status = 504


_BY_STATUS: dict[int, type[Refused]] = {
    found.status: found
    for found in (
        Invalid,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        PreconditionFailed,
        TooLarge,
        WrongServer,
        NoRoom,
        TimedOut,
    )
}
_BY_STATUS[405] = Invalid
_BY_CODE: dict[str, type[Refused]] = {
    "timeout": TimedOut,
    "not-evacuated": TimedOut,
    "role": Forbidden,
    "scope": Forbidden,
}


def error_of(problem: api.Problem, status: int) -> ClientError:
    """The typed error of a refusal. A long call's comes after its status: `status` is 200 then, and the code tells."""
    if status == 503:
        return Unreachable(problem.message)
    found = _BY_CODE.get(problem.code) or (Conflict if status == 200 else _BY_STATUS.get(status, Refused))
    refused = found(problem.code, problem.message, problem.where, problem.problems)
    refused.status = status
    return refused
