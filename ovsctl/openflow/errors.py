"""The error tree of ovsctl.openflow. One rule: an error says where it is and what to do about it.

`InvalidValueError` is our own misuse; `MalformedMessage`, `NegotiationError`, `PeerError` and `ModError` are the
switch's word; `ChannelLost` and `RequestTimeout` ask for another try on a new connection.
"""

from __future__ import annotations

from collections.abc import Sequence


class OpenFlowError(Exception):
    """Anything that this package raises on purpose."""


class InvalidValueError(OpenFlowError, ValueError):
    """Our own misuse: a value that no switch could take. Nothing was sent."""


class FieldError(InvalidValueError):
    """A match field or sub-field that cannot be: unknown, too wide, without its prerequisite."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field {field}: {problem}")
        self.field = field
        self.problem = problem


class ActionError(InvalidValueError):
    """An action that cannot be."""

    def __init__(self, action: str, problem: str) -> None:
        super().__init__(f"action {action}: {problem}")
        self.action = action
        self.problem = problem


class FlowError(InvalidValueError):
    """A flow, group or meter that cannot be."""


class TooLong(InvalidValueError):
    """A modification that does not fit into an OpenFlow message."""

    def __init__(self, mod: object, problem: str) -> None:
        super().__init__(f"does not fit into an OpenFlow message ({problem}): {mod}")
        self.mod = mod


class TextError(InvalidValueError):
    """Text that is not `ovs-ofctl` syntax, or uses a part of it that ovsctl does not support."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(f"{problem}: {text[:200]!r}")
        self.text = text
        self.problem = problem


class MalformedMessage(OpenFlowError):
    """The peer's bytes are not OpenFlow 1.5, or use a part of it that ovsctl does not support."""

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(f"{subject}: {problem}")
        self.subject = subject
        self.problem = problem


class NegotiationError(OpenFlowError):
    """The switch speaks no OpenFlow version that we do."""


class ChannelLost(OpenFlowError):
    """The connection ended. Requests that no barrier has answered may or may not have been carried out."""


class RequestTimeout(OpenFlowError):
    """The switch did not answer within the time given. Whether it did the work is unknown."""


class PeerError(OpenFlowError):
    """The switch answered with OFPT_ERROR (OpenFlow 1.5 §7.5.4).

    `type_code` and `code` are the numbers on the wire, `experimenter` is 0 for a standard error; `name` is
    such as `OFPBAC_BAD_OUT_PORT`; `xid` is that of the offending request, `request` that request where it is
    still known (a FlowMod, GroupMod, ...), `description` that in words, `data` what the switch quoted of it.
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
        description: str = "",
    ) -> None:
        what = description or ("" if request is None else str(request))
        super().__init__(f"{name} ({type_code},{code}) for request {xid:#x}{what and ': '}{what}")
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
    """A bundle failed. `errors` names the modifications at fault. Nothing was applied, if it was not sent at once."""
