"""The errors of ovsctl.openflow: one tree, split by whose fault it is.

`UsageError` is ours (a value or call that cannot be right), `DecodeError`, `NegotiationError` and `PeerError`
are the switch's, `ConnectionLost` and `RequestTimeout` ask for a later try on a new connection.
"""

from __future__ import annotations

from collections.abc import Sequence


class OpenFlowError(Exception):
    """Base of every error raised by ovsctl.openflow."""


class UsageError(OpenFlowError, ValueError):
    """A value or a call that cannot be right, whatever the switch says; nothing was sent."""


class DecodeError(OpenFlowError):
    """Bytes that are not what OpenFlow says they should be. The message says what, `offset` where."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset


class NegotiationError(OpenFlowError):
    """The switch speaks no OpenFlow version that we do."""


class ConnectionLost(OpenFlowError):
    """The connection ended. What was not yet answered by a barrier may or may not have been done."""


class RequestTimeout(OpenFlowError):
    """The switch did not answer within the time given. Whether it did the work is unknown."""


class PeerError(OpenFlowError):
    """The switch answered with OFPT_ERROR (OpenFlow 1.5 §7.5.4).

    `type_code` and `code` are the numbers on the wire, `experimenter` is 0 for a standard error; `name` is
    such as `OFPBAC_BAD_OUT_PORT`; `xid` is that of the offending request, `request` that request where it is
    still known (a FlowMod, GroupMod, ...), `data` what the switch quoted of it.
    """

    def __init__(
        self,
        name: str,
        type_code: int,
        code: int,
        experimenter: int,
        xid: int,
        data: bytes = b"",
        request: object = None,
    ) -> None:
        what = "" if request is None else f": {request}"
        super().__init__(f"{name} ({type_code},{code}) for request {xid:#x}{what}")
        self.name = name
        self.type_code = type_code
        self.code = code
        self.experimenter = experimenter
        self.xid = xid
        self.data = data
        self.request = request


class ModError(OpenFlowError):
    """Some of the modifications of a batch were refused; `errors` has one PeerError per refused one."""

    def __init__(self, errors: Sequence[PeerError], refused: int | None = None) -> None:
        self.errors = tuple(errors)
        self.refused = len(self.errors) if refused is None else refused
        shown = "; ".join(str(error) for error in self.errors[:5])
        super().__init__(f"the switch refused {self.refused} modification(s): {shown}")


class BundleError(ModError):
    """A bundle failed, and nothing of it was applied. `errors` names the modifications at fault."""
