"""The error tree of ovsctl.datapath."""

from __future__ import annotations


class DatapathError(Exception):
    """Base of what this package raises on purpose."""


class FrameError(DatapathError):
    """The bytes are no Ethernet frame."""


class UnsupportedFlowError(DatapathError):
    """A flow uses an action or a field that this datapath does not implement. It never guesses.

    feature: the action or field.
    """

    def __init__(self, feature: str) -> None:
        super().__init__(f"this datapath cannot run the flow: {feature}")
        self.feature = feature
