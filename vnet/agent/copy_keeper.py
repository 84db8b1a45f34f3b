"""Keeps this host's copy of the pool, and takes it up where no database answers at the start.

One rule: the copy follows what the agent holds, and never holds it up: it is encoded and written beside the agent's loop. Nothing in it
is decided here, and nothing is written to the pool from it (docs/adr/0019-a-host-keeps-its-own-copy.md).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ovsctl.ovsdb import ConnectFailed, OvsdbClient, OvsdbError, Replica, Row, Schema, Uuid
from vnet.agent.conditions import monitors
from vnet.agent.local_copy import (
    FORMAT,
    NAME,
    CopiedRows,
    CopyBody,
    CopyHeader,
    CopyOwner,
    CopyRefused,
    encode_body,
    make_directory,
    read_copy,
    write_copy,
)
from vnet.agent.pool_identity import PoolIdentity
from vnet.agent.pool_replica import ConditionNames
from vnet.db.rows import SCHEMA_TEXT

log = logging.getLogger(__name__)

ALONE_AFTER_S = 1.0  # without an answer of the pool database
WRITTEN_AFTER_S = 1.0  # a change; and the next copy waits so many times as long as the last one took
IDLE_PER_WORK = 20
MARKED_AFTER_S = 0.01  # a change: what a plug waits for goes first
MARK = "pool.copy.behind"


@dataclass(frozen=True, slots=True)
class TakenCopy:
    """A copy that is in use."""

    header: CopyHeader
    body: CopyBody

    @property
    def named(self) -> ConditionNames:
        body = self.body
        return ConditionNames(frozenset(body.vifs), frozenset(body.networks), frozenset(body.groups))

    @property
    def rows(self) -> CopiedRows:
        """In wire form, by table and UUID."""
        return self.body.tables


@dataclass(frozen=True, slots=True)
class CopySource:
    """The replica that is copied, what its conditions name, and the switch of this host. held: what holds instead of rows that cannot be read."""

    replica: Replica
    held: Callable[[], Iterable[tuple[str, Uuid, Row]]]
    names: Callable[[], ConditionNames]
    switch: str


@dataclass(frozen=True, slots=True)
class KeeperState:
    """taken: the copy that the agent runs on. former: the rows of the one that was there at the start, once they were asked for. problem: of writing one. number: of the newest copy, written: how many were."""

    taken: TakenCopy | None = None
    former: Mapping[str, Mapping[Uuid, Row]] | None = None
    problem: str = ""
    number: int = 0
    written: int = 0


class CopyKeeper:
    """directory: where the copy is, None for no copy. vswitchd: the file with the process id of ovs-vswitchd.

    sound: whether what the replica holds now may be kept: all of it has come, and from the pool that is followed.
    """

    def __init__(
        self,
        directory: Path | None,
        host: str,
        vswitchd: Path,
        identity: PoolIdentity,
        now_ms: Callable[[], int],
        sound: Callable[[], bool],
    ) -> None:
        self._state = KeeperState()
        self._source: CopySource | None = None
        self._directory: Final = directory
        self._host: Final = host
        self._vswitchd: Final = vswitchd
        self._identity: Final = identity
        self._now_ms: Final = now_ms
        self._sound: Final = sound
        self._changed: Final = asyncio.Event()
        self._writing: Final = threading.Lock()

    @property
    def problem(self) -> str:
        """The reason why no copy is kept, "" if one is."""
        return self._state.problem

    @property
    def written(self) -> int:
        """How many copies were written."""
        return self._state.written

    # Taken

    async def take(self, client: OvsdbClient, switch: str) -> TakenCopy | None:
        """The copy, if the pool database does not answer and the copy may be used."""
        with suppress(ConnectFailed):
            await client.wait_connected(ALONE_AFTER_S)
            return None
        await self._identity.load()
        taken = self._read(switch) if not client.connected else None
        self._state = replace(self._state, taken=taken)
        if taken is not None:
            header = taken.header
            log.warning(
                "the pool database does not answer: runs on its own copy of pool %s, of revision %d",
                header.pool,
                header.revision,
            )
        return taken

    def _read(self, switch: str) -> TakenCopy | None:
        if self._directory is None:
            return None
        identity = self._identity
        owner = CopyOwner(self._host, switch, identity.followed, identity.copy_number)
        try:
            taken = TakenCopy(*read_copy(self._directory, owner, Schema.parse(SCHEMA_TEXT)))
            self._check_mark(self._directory)
        except FileNotFoundError:
            log.info("there is no copy of the pool in %s", self._directory)
        except CopyRefused as refused:
            self.refuse(str(refused))
        else:
            return taken
        return None

    def former(self, table: str, uuid: Uuid) -> Row | None:
        """A row as the copy had it at the start, until the first copy of this agent."""
        if self._state.former is None:
            self._state = replace(self._state, former=self._read_former())
        return (self._state.former or {}).get(table, {}).get(uuid)

    def _read_former(self) -> Mapping[str, Mapping[Uuid, Row]]:
        if self._directory is None or self._source is not None:
            return {}
        identity = self._identity
        owner = CopyOwner(self._host, identity.switch, identity.followed, identity.copy_number)
        try:
            schema = Schema.parse(SCHEMA_TEXT)
            _, body = read_copy(self._directory, owner, schema)
            found = Replica(schema, monitors(self._host, ()))
            found.preload(body.tables)
        except (FileNotFoundError, CopyRefused, OvsdbError) as error:
            log.info("what this host had of the pool is not known: %s", error)
            return {}
        return {table: found[table] for table in found}

    def _check_mark(self, directory: Path) -> None:
        """An agent that died had changes in the switch that its copy has not; they are lost only with that ovs-vswitchd."""
        with suppress(FileNotFoundError):
            mark = (directory / MARK).read_text()
            if mark and mark == self._running():
                raise CopyRefused(f"{directory / NAME} lacks the last changes that the switch was programmed with")

    def _running(self) -> str:
        """The ovs-vswitchd that runs: its process, and when its file was made; "" if that is not known."""
        try:
            return f"{self._vswitchd.read_text().strip()} {self._vswitchd.stat().st_mtime_ns}"
        except OSError:
            return ""

    def refuse(self, reason: str) -> None:
        """The copy is none that may be used."""
        self._state = replace(self._state, taken=None)
        log.warning("the copy of the pool is not used, and nothing changes here: %s", reason)

    @property
    def description(self) -> str:
        """The copy that is in use, "" for none."""
        if self._state.taken is None:
            return ""
        header = self._state.taken.header
        written = datetime.fromtimestamp(header.written / 1000, UTC)
        return f"copy of pool {header.pool}, of revision {header.revision}, of {written:%Y-%m-%d %H:%M:%S} UTC"

    def let_go(self) -> None:
        """The pool database answers, and all that it differs in has come."""
        if self._state.taken is not None:
            self._state = replace(self._state, taken=None)
            log.info("the pool database answers: its own copy is not in use any more")

    # Kept

    def follow(self, source: CopySource) -> None:
        """Has a replica copied, now and whenever it changes."""
        self._source = source
        self._state = replace(self._state, former={})
        self.touch()

    def touch(self) -> None:
        """What the agent holds is another by now."""
        self._changed.set()

    async def run(self) -> None:
        """Writes the copy for ever."""
        directory = self._directory
        if directory is None:
            return
        self._clear(directory)
        pause_s = WRITTEN_AFTER_S
        while True:
            await self._changed.wait()
            await asyncio.sleep(MARKED_AFTER_S)
            self._mark(directory)
            await asyncio.sleep(pause_s)
            if not self._sound():
                continue
            self._changed.clear()
            pause_s = await self._write(directory)

    async def _write(self, directory: Path) -> float:
        """Writes it; returns the seconds to wait from the next change to the next one."""
        work = self._work(directory)
        started = asyncio.get_running_loop().time()
        self._tell(await asyncio.to_thread(work))
        took_s = asyncio.get_running_loop().time() - started
        if not self.problem and not self._changed.is_set():
            self._unmark(directory)
        with suppress(
            OvsdbError
        ):  # after a copy that could not be written, so that the one before is known as an old one
            await self._identity.note_copy(self._state.number)
        return max(WRITTEN_AFTER_S, IDLE_PER_WORK * took_s)

    def flush(self) -> None:
        """Writes what is not written yet: the agent stops."""
        if self._directory is not None and self._changed.is_set() and self._sound():
            self._changed.clear()
            self._tell(self._work(self._directory)())
            if not self.problem:
                self._unmark(self._directory)

    def discard(self) -> None:
        """Another agent is this host's: what it does is not in the copy."""
        if self._directory is not None:
            with suppress(OSError):
                (self._directory / NAME).unlink(missing_ok=True)

    def _work(self, directory: Path) -> Callable[[], str]:
        """What writes the present rows, in a thread or not; it returns the problem."""
        source, followed = self._source, self._identity.followed
        if source is None or followed is None:
            return str
        replica, names = source.replica, source.names()
        schema, rows = replica.schema, {table: dict(replica[table]) for table in replica}
        for table, uuid, row in source.held():
            rows[table][uuid] = row
        number = max(self._state.number, self._identity.copy_number) + 1
        self._state = replace(self._state, number=number)
        header = CopyHeader(
            format=FORMAT, schema=schema.version, host=self._host, switch=source.switch, pool=followed.id,
            revision=followed.revision, number=number, written=self._now_ms(),
        )  # fmt: skip
        sets = (sorted(names.vifs), sorted(names.networks), sorted(names.groups))

        def work() -> str:
            with self._writing:
                if number < self._state.number:
                    return ""  # the agent stops, and has written the next one
                try:
                    write_copy(directory, header, encode_body(schema, rows, sets))
                except (OSError, CopyRefused) as error:
                    return f"no copy of the pool is kept on this host: {directory}: {error}"
                return ""

        return work

    def _tell(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("%s", problem)
        self._state = replace(self._state, problem=problem, written=self.written + (not problem))

    def _mark(self, directory: Path) -> None:
        with suppress(OSError, CopyRefused):
            if not (directory / MARK).exists():
                make_directory(directory)
                (directory / MARK).write_text(self._running())

    def _unmark(self, directory: Path) -> None:
        with suppress(OSError):
            (directory / MARK).unlink(missing_ok=True)

    def _clear(self, directory: Path) -> None:
        """Removes what an agent that was killed had begun to write."""
        for left in directory.glob(f".{NAME}.*"):
            with suppress(OSError):
                left.unlink()
