"""The errors of calls to the controller, in one tree."""

from __future__ import annotations

from vnet import api


class ClientError(Exception):
    """Base of everything that the clients raise."""


class Unreachable(ClientError):
    """The controller, or the pool database behind it, does not answer. Whether a call was carried out is open: repeat it."""


class BadAnswer(ClientError):
    """The answer is not one of a controller of this version."""


class Refused(ClientError):
    """The controller refused a call; nothing has changed. `problem` has the reason, for programs too."""

    def __init__(self, problem: api.Problem, status: int) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.status = status

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def where(self) -> str:
        """The field, the object or the host at fault; may be empty."""
        return self.problem.where


class Invalid(Refused):
    """The call can never be right."""


class Unauthorized(Refused):
    """No token, or a wrong one."""


class NotFound(Refused):
    """There is no such object."""


class Conflict(Refused):
    """The call does not fit the pool as it is now."""


class NoRoom(Refused):
    """The pool database's disk is full."""


class TimedOut(Refused):
    """The wait was too short. Steps that are done stay done; call again to go on."""


_BY_STATUS: dict[int, type[Refused]] = {
    400: Invalid,
    401: Unauthorized,
    404: NotFound,
    405: Invalid,
    409: Conflict,
    413: Invalid,
    504: TimedOut,
    507: NoRoom,
}
_BY_CODE: dict[str, type[Refused]] = {"timeout": TimedOut, "not-evacuated": TimedOut}


def error_of(problem: api.Problem, status: int) -> ClientError:
    """The typed error of a refusal. A long call's comes after its status: `status` is 200 then, and the code tells."""
    if status == 503:
        return Unreachable(problem.message)
    refused = _BY_CODE.get(problem.code) or (Conflict if status == 200 else _BY_STATUS.get(status, Refused))
    return refused(problem, status)
