"""Flow tables, and the smallest ordered list of changes from one to another.

One rule: flows are told apart, and compared, by their canonical bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import ClassVar

import msgspec

from ovsctl.openflow.flow import FLOW_MOD_TYPE, FULL_COOKIE, KEPT_FLAGS, Flow, FlowModCommand, encode_flow_mod

_KEY = struct.Struct(">BH")
_REST = struct.Struct(">QHHHH")
_KEPT = int(KEPT_FLAGS)


class Add(msgspec.Struct, frozen=True):
    """A flow that is not there yet."""

    TYPE: ClassVar[int] = FLOW_MOD_TYPE
    flow: Flow

    @property
    def command(self) -> FlowModCommand:
        return FlowModCommand.ADD

    def encode(self) -> bytes:
        """The flow-mod's body."""
        return self.flow.encode_add()


class Modify(msgspec.Struct, frozen=True):
    """A flow that is there with other actions, cookie, timeouts or flags. Its counters go on."""

    TYPE: ClassVar[int] = FLOW_MOD_TYPE
    flow: Flow
    old: Flow

    @property
    def command(self) -> FlowModCommand:
        """MODIFY_STRICT where only actions differ: it leaves the rest, and the flow's age, alone.

        Else ADD, which replaces the flow and, without reset_counts, keeps its counters (OpenFlow 1.5.1 §6.4).
        """
        flow, old = self.flow, self.old
        same = (
            flow.cookie == old.cookie
            and flow.idle_timeout == old.idle_timeout
            and flow.hard_timeout == old.hard_timeout
            and flow.importance == old.importance
            and flow.flags & _KEPT == old.flags & _KEPT
        )
        return FlowModCommand.MODIFY_STRICT if same else FlowModCommand.ADD

    def encode(self) -> bytes:
        """The flow-mod's body."""
        return encode_flow_mod(self.flow, self.command)


class FlowDeletion(msgspec.Struct, frozen=True):
    """A flow that shall not be there. Only a flow with its cookie is deleted, so never someone else's."""

    TYPE: ClassVar[int] = FLOW_MOD_TYPE
    flow: Flow

    @property
    def command(self) -> FlowModCommand:
        return FlowModCommand.DELETE_STRICT

    def encode(self) -> bytes:
        """The flow-mod's body."""
        return encode_flow_mod(self.flow, FlowModCommand.DELETE_STRICT, cookie_mask=FULL_COOKIE)


FlowChange = Add | Modify | FlowDeletion


def _key(flow: Flow) -> bytes:
    return _KEY.pack(flow.table, flow.priority) + flow.match.wire


def _rest(flow: Flow) -> bytes:
    fixed = _REST.pack(flow.cookie, flow.idle_timeout, flow.hard_timeout, flow.importance, flow.flags & _KEPT)
    return fixed + flow.encode_instructions()


class FlowTable:
    """The flows of a switch, one per (table, priority, match); of two with one key, the later one holds."""

    __slots__ = ("_flows", "_rests")

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self._flows: dict[bytes, Flow] = {}
        self._rests: dict[bytes, bytes] = {}
        for flow in flows:
            self.add(flow)

    def add(self, flow: Flow) -> None:
        """Put a flow in, in place of one with its key."""
        key = _key(flow)
        self._flows[key] = flow
        self._rests[key] = _rest(flow)

    def discard(self, flow: Flow) -> None:
        """Take the flow with this one's key out, if there is one."""
        key = _key(flow)
        self._flows.pop(key, None)
        self._rests.pop(key, None)

    def get(self, flow: Flow) -> Flow | None:
        """The flow with this one's key."""
        return self._flows.get(_key(flow))

    def apply(self, changes: Iterable[FlowChange]) -> None:
        """Do what the changes say."""
        for change in changes:
            if isinstance(change, FlowDeletion):
                self.discard(change.flow)
            else:
                self.add(change.flow)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._flows.values())

    def __len__(self) -> int:
        return len(self._flows)

    def __contains__(self, flow: Flow) -> bool:
        """Whether this very flow is in it: key, actions, cookie, timeouts and flags."""
        key = _key(flow)
        return key in self._rests and self._rests[key] == _rest(flow)

    def __eq__(self, other: object) -> bool:
        return self._rests == other._rests if isinstance(other, FlowTable) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @staticmethod
    def diff(desired: FlowTable, actual: FlowTable) -> list[FlowChange]:
        """The fewest changes that make `actual` into `desired`: additions, modifications, then deletions.

        Additions and modifications are in table and priority order, highest table first, so that applied one by
        one (not in a bundle) a flow's resubmits find their flows. It does not touch what is equal.
        """
        want, have = desired._rests, actual._rests
        changed = sorted((key for key, rest in want.items() if have.get(key) != rest), reverse=True)
        adds = [Add(desired._flows[key]) for key in changed if key not in have]
        modifies = [Modify(desired._flows[key], actual._flows[key]) for key in changed if key in have]
        kept = len(want) - len(adds)
        surplus = sorted(key for key in have if key not in want) if len(have) > kept else []
        return [*adds, *modifies, *(FlowDeletion(actual._flows[key]) for key in surplus)]
