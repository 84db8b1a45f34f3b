"""The pool that this host belongs to: its id, and how far the host has followed it. The local Open vSwitch database keeps both.

One rule: a pool database that is empty, of another pool, or older than what this host has followed changes nothing here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from ovsctl.ovsdb import Change, Mutate, Operation, OvsdbClient, OvsdbError, Select, Update, Uuid
from vnet.agent import transactions
from vnet.objects import AgentStatus, Event
from vnet.objects.binding import POOL

# In external_ids of the row of table Open_vSwitch, whose changes ovs-vswitchd does not look at.
ID, REVISION = "vnet-pool", "vnet-pool-revision"
COPY = "vnet-pool-copy"  # the number of the newest copy of the pool that this host has made (copy_keeper.py)
REPORTED_EVERY_S = 60.0
AS_FOLLOWED = Select("Pool", (), ("id", "revision"))

Transact = Callable[..., Awaitable[list[Any]]]


class NotFollowed(OvsdbError):
    """The database is not one that this host follows."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A pool, and the revision up to which it is known here."""

    id: str
    revision: int

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Followed | None:
        """The pool that a database has; None where it is empty, or its pool has no id yet."""
        return next((cls(row["id"], row["revision"]) for row in rows if row["id"]), None)


def objection(known: Followed | None, found: Followed | None) -> str:
    """The reason not to follow a database, "" if there is none."""
    if known is None:
        return ""
    if found is None:
        return f"has no pool, and this host belongs to pool {known.id}"
    if found.id != known.id:
        return f"has pool {found.id}, and this host belongs to pool {known.id}"
    if found.revision < known.revision:
        return f"is at revision {found.revision} of pool {known.id}, and this host has followed it up to revision {known.revision}"
    return ""


@dataclass(frozen=True, slots=True)
class IdentityState:
    """known: the pool that this host belongs to; kept: the same as the local database has it. switch: the UUID of its row;
    copy_number: of the newest copy of the pool, by the same.

    objection: to the database that was looked at last. reported: the text that was told last, and when, in milliseconds.
    """

    known: Followed | None = None
    kept: Followed | None = None
    switch: Uuid = ""
    copy_number: int = 0
    objection: str = ""
    reported: tuple[str, int] = ("", 0)


class PoolIdentity:
    """Keeps to one pool. status: the agent's, for the database that is not followed to show."""

    def __init__(self, ovs: OvsdbClient, status: AgentStatus, now_ms: Callable[[], int], place: str = "") -> None:
        self._place: Final = place
        self._ovs: Final = ovs
        self._status: Final = status
        self._now_ms: Final = now_ms
        self._state = IdentityState()
        self._held: Final[dict[tuple[str, Uuid], Change]] = {}  # changes that came from a database that is in doubt

    @property
    def followed(self) -> Followed | None:
        """The pool that this host belongs to."""
        return self._state.known

    @property
    def objection(self) -> str:
        """The reason why the database that was looked at last is not followed, "" if it is."""
        return self._state.objection

    @property
    def switch(self) -> Uuid:
        """The UUID of the switch's row; "" before `load`."""
        return self._state.switch

    @property
    def copy_number(self) -> int:
        """The number of the newest copy of the pool that this host has made; 0 for none."""
        return self._state.copy_number

    # Asked

    async def check(self, transact: Transact) -> None:
        """Looks at a server before it is used. Raises NotFollowed, after telling so in its database."""
        await self.load()
        (rows,) = await transact(AS_FOLLOWED)
        found = objection(self._state.known, Followed.of(rows))
        self._state = replace(self._state, objection=found)
        if found:
            await self._report(transact)
            raise NotFollowed(f"the pool database {found}")
        self.seen(rows)

    def doubts(self, batch: Iterable[Change]) -> bool:
        """Whether changes of a database that is followed may be those of another: its pool went, or is not the one it was."""
        known = self._state.known
        return any(
            change.new is None
            or (known is not None and change.new["id"] != known.id)
            or (change.old is not None and change.new["generation"] < change.old["generation"])
            for change in batch
            if change.table == "Pool"
        )

    @property
    def holds(self) -> bool:
        """Whether changes are held till it is known whether they are the pool's."""
        return bool(self._held)

    def hold(self, batch: Iterable[Change]) -> None:
        """Keeps changes until the database they came from is in doubt no more."""
        for change in batch:
            before = self._held.get((change.table, change.uuid))
            old = change.old if before is None else before.old
            self._held[change.table, change.uuid] = Change(change.table, change.uuid, old, change.new)

    def let_go(self) -> tuple[Change, ...]:
        """The changes that were held, each row's as one."""
        held = tuple(change for change in self._held.values() if change.old != change.new)
        self._held.clear()
        return held

    # Remembered

    def joins(self, batch: Iterable[Change]) -> bool:
        """Whether this host belonged to no pool, and changes that are followed say which it belongs to now."""
        if self._state.known is not None:
            return False
        ids = (change.new["id"] for change in batch if change.table == "Pool" and change.new is not None)
        self._state = replace(self._state, known=next((Followed(id, 0) for id in ids if id), None))
        return self._state.known is not None

    def seen(self, rows: Iterable[Any]) -> bool:
        """Takes the pool's row as a database that is followed has it now. False if it is not to be followed any more."""
        found = Followed.of(rows)
        if objection(self._state.known, found):
            return False
        self._state = replace(self._state, known=found or self._state.known)
        return True

    async def keep(self) -> None:
        """Writes what is known to the local database, if that is new."""
        known = self._state.known
        if known is None or known == self._state.kept:
            return
        ids = {ID: known.id, REVISION: str(known.revision)}
        with suppress(OvsdbError):
            insert = Mutate("Open_vSwitch", (), (("external_ids", "insert", ids),))
            await self._ovs.transact(_forget(ID, REVISION), insert)
            self._state = replace(self._state, kept=known)

    async def load(self) -> None:
        """Reads what the local database has, unless it is known."""
        if self._state.known is None:
            self._state = await self._read()

    async def note_copy(self, number: int) -> None:
        """Writes the number of the newest copy to the local database. Raises OvsdbError."""
        new = Mutate("Open_vSwitch", (), (("external_ids", "insert", {COPY: str(number)}),))
        await self._ovs.transact(_forget(COPY), new)
        self._state = replace(self._state, copy_number=number)

    async def leave(self) -> str:
        """Belongs to no pool any more. Returns the id of the one it was. Raises OvsdbError."""
        left = self._state.known
        await self._ovs.transact(_forget(ID, REVISION, COPY))
        self._state = replace(self._state, known=None, kept=None, copy_number=0)
        return left.id if left is not None else ""

    async def _read(self) -> IdentityState:
        (rows,) = await self._ovs.transact(Select("Open_vSwitch", (), ("_uuid", "external_ids")))
        switch, ids = (rows[0]["_uuid"] + self._place, rows[0]["external_ids"]) if rows else ("", {})
        known = Followed(ids[ID], _number(ids, REVISION)) if ids.get(ID) else None
        return replace(self._state, switch=switch, known=known, kept=known, copy_number=_number(ids, COPY))

    async def _report(self, transact: Transact) -> None:
        """Says in the database that is not followed that it is not, now and then."""
        now_ms = self._now_ms()
        text = f"the pool database {self.objection}: it is not followed, and nothing changes here"
        before, when_ms = self._state.reported
        if text == before and now_ms - when_ms < REPORTED_EVERY_S * 1000:
            return
        self._state = replace(self._state, reported=(text, now_ms))
        problems, host = {POOL: text}, self._status.host
        ours = (("host", "==", host), ("switch", "==", self._state.switch))
        event = transactions.event(Event(now_ms, "problem", text, host))
        with suppress(OvsdbError):  # no heartbeat: a host that does not follow the pool does not act for it
            count, _ = await transact(Update("Agent", ours, {"problems": problems}), event)
            if not count:  # it fails where another switch is that host
                status = replace(self._status, switch=self._state.switch, heartbeat=0, problems=problems)
                await transact(*transactions.take_host(status, None))


def _number(ids: Mapping[str, str], key: str) -> int:
    text = ids.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _forget(*keys: str) -> Operation:
    return Mutate("Open_vSwitch", (), (("external_ids", "delete", frozenset(keys)),))
