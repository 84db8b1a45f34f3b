"""The errors of ovsctl.vswitch. Refusals of the database are raised by ovsctl.ovsdb, unchanged."""

from __future__ import annotations


class VSwitchError(Exception):
    """Base of every error raised by ovsctl.vswitch."""


class IncompleteSnapshot(VSwitchError):
    """The view of the database has a hole: wait until it is synced, or monitor all that `COLUMNS` names."""


class NotConfigured(VSwitchError):
    """The database has the change, but ovs-vswitchd did not say in time that it has carried it out.

    Is it running? Once it is, it will: nothing has to be repeated.
    """

    def __init__(self, next_cfg: int, cur_cfg: int, timeout_s: float) -> None:
        self.next_cfg = next_cfg
        self.cur_cfg = cur_cfg
        super().__init__(
            f"ovs-vswitchd has not configured change {next_cfg} within {timeout_s} s (it is at {cur_cfg}): "
            "is it running and connected to its database?"
        )
