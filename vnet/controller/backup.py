"""Backups of a pool: files that `ovsdb-server` could serve, with everything that the pool database holds on its disk.

One rule: a backup is read as it would be served, by an ovsdb-server on a copy, and restored only where it is of the pool that is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from ovsctl.ovsdb import Tls
from vnet.api.errors import Conflict, Invalid
from vnet.controller.embedded import DATABASE, EmbeddedDatabase, run_tool, tls_options
from vnet.controller.file_check import check_file
from vnet.db.changes import state_changes
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.history import Author
from vnet.db.roles import role_operations
from vnet.db.rows import SCHEMA_NAME
from vnet.db.writes import configuration_write
from vnet.grammar.declare import Declared
from vnet.objects import Event, Owner, PoolState, Vif, Vm
from vnet.objects.index import VifIndex
from vnet.objects.proposal import Proposal
from vnet.objects.rules import faults
from vnet.objects.state import CONFIGURED
from vnet.plan import plan_pool
from vnet.plan.pool import costs_of
from vnet.util.suggest import plural

OWNERS = ("owned-by-document", "owned-by-toolstack")  # a restore makes the objects of both sides
LISTED = 5
COPIES = 24  # of the pool database, that a controller keeps


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a backup. problems: the rows that cannot be read, and the invariants that it breaks."""

    state: PoolState
    problems: tuple[str, ...]

    @property
    def summary(self) -> str:
        """A few words."""
        if self.state.pool is None:
            return "an empty database, without a pool"
        counts = ", ".join(
            f"{len(found)} {_nouns(declared, len(found))}"
            for declared in CONFIGURED
            if (found := getattr(self.state, declared.NOUN.state))
        )
        return f"pool {self.state.pool.name} at revision {self.state.pool.revision}: {counts or 'nothing in it'}"


def _nouns(declared: type[Declared], count: int) -> str:
    return declared.NOUN.text if count == 1 else plural(declared.NOUN.text)


@dataclass(frozen=True, slots=True)
class BackupSource:
    """Where a backup is read: any of the remotes of a pool database's servers, with the identity that ssl: needs."""

    remotes: tuple[str, ...]
    tls: Tls | None = None


def save(source: BackupSource, path: Path) -> None:
    """Writes a backup of the database that runs there. Raises PoolUnreachable, OSError."""
    where = ",".join(source.remotes)
    options = (*tls_options(source.tls), "--timeout=60", "--no-leader-only")
    text = run_tool("ovsdb-client", *options, "backup", where, SCHEMA_NAME)
    made = path.with_name(f".{path.name}.new")
    made.unlink(missing_ok=True)
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    check_file(made, clustered=False)
    made.replace(path)


def keep_copy(source: BackupSource, directory: Path, now: datetime) -> Path:
    """Saves a copy in a directory, and removes the oldest of more than COPIES. Raises as save() does."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = directory / f"{DATABASE}.copy-{now:%Y%m%dT%H%M%S}"
    save(source, made)
    for old in sorted(directory.glob(f"{DATABASE}.copy-*"))[:-COPIES]:
        old.unlink(missing_ok=True)
    return made


async def load(path: Path) -> Backup:
    """The content of a backup. Raises Invalid, DamagedDatabase, SchemaMismatch, PoolUnreachable, OSError."""
    async with _served(path) as (_, pool):
        state = pool.mirror.state.snapshot()
        proposal = Proposal.between(PoolState(), state, VifIndex(), Owner.DOCUMENT)
        broken = [
            f"{fault.noun} {fault.name}: {fault.message}" for fault in faults(proposal) if fault.code not in OWNERS
        ]
        return Backup(state, (*pool.mirror.problems.values(), *broken))


@asynccontextmanager
async def _served(path: Path) -> AsyncIterator[tuple[EmbeddedDatabase, PoolDatabase]]:
    """A copy of a backup, served with the schema of this version, and a connection to it."""
    with _copied(path) as database:
        database.ensure()
        pool = PoolDatabase([database.remote])
        try:
            await pool.open()
            yield database, pool
        finally:
            await pool.close()


@contextmanager
def _copied(path: Path) -> Iterator[EmbeddedDatabase]:
    with TemporaryDirectory(prefix="vnet-") as made:
        database = EmbeddedDatabase(Path(made) / "run", Path(made) / "state")
        database.state_dir.mkdir(mode=0o700)
        shutil.copyfile(path, database.database)
        if database.clustered:
            raise Invalid("backup", f"{path} is the file of a cluster's server: make a backup with `vnet pool backup`")
        try:
            yield database
        finally:
            database.stop()


async def wanted(pool: PoolDatabase, kept: Backup) -> PoolState:
    """The pool as a backup has it, where each VIF and VM stays where it is now. Raises Conflict for another pool's, and for what cannot be
    as the pool is now."""
    live, old = pool.mirror.state, kept.state
    if live.pool is None or old.pool is None or live.pool.id != old.pool.id:
        here = f"pool {live.pool.name} ({live.pool.id})" if live.pool is not None else "no pool"
        there = f"pool {old.pool.name} ({old.pool.id})" if old.pool is not None else "none"
        raise Conflict(
            "another-pool", f"the backup is of {there}, and here is {here}: nothing proves that they are the same"
        )
    desired = replace(
        live,
        pool=replace(old.pool, revision=live.pool.revision, generation=live.pool.generation),
        **{declared.NOUN.state: getattr(old, declared.NOUN.state) for declared in CONFIGURED},
    )
    desired = replace(
        desired,
        vifs={id: _placed_vif(vif, live.vifs.get(id)) for id, vif in old.vifs.items()},
        vms={name: _placed_vm(vm, live.vms.get(name)) for name, vm in old.vms.items()},
    )
    proposal = Proposal.between(live, desired, VifIndex(live.vifs.values()), Owner.DOCUMENT)
    broken = [fault for fault in faults(proposal) if fault.code not in OWNERS]
    if broken:
        listed = "; ".join(f"{fault.noun} {fault.name}: {fault.message}" for fault in broken[:LISTED])
        raise Conflict("not-as-it-is-now", f"the pool cannot be as it was: {listed}")
    return desired


def _placed_vif(kept: Vif, live: Vif | None) -> Vif:
    if live is None:
        return replace(kept, host=None, incoming=None, awaited=False)
    return replace(kept, host=live.host, incoming=live.incoming, epoch=live.epoch, awaited=live.awaited)


def _placed_vm(kept: Vm, live: Vm | None) -> Vm:
    return kept if live is None else replace(kept, host=live.host)


async def write(pool: PoolDatabase, desired: PoolState, name: str, author: Author) -> int:
    """Makes the pool so in the author's name, if it is still as it was. Returns its revision. Raises WriteConflict, PoolUnreachable, DatabaseFull."""
    live = pool.mirror.state
    if (trial := pool.mirror.trial) is not None:
        raise Conflict(
            "on-trial",
            f"revision {trial.revision} of {trial.caller} is on trial: 'vnet confirm' or 'vnet revert' first",
        )
    changes = state_changes(live, desired)
    if not changes or live.pool is None:
        return live.pool.revision if live.pool is not None else 0
    made = configuration_write(changes, live.pool, generation=True, rows=pool.mirror)
    costs = costs_of(plan_pool(live, desired))
    told = [Event(now_ms(), "restored", f"backup {name}: {len(changes)} changes")]
    await pool.write(made, told, author, costs)
    return made.revision or 0


async def fill(database: EmbeddedDatabase, live: PoolDatabase, path: Path) -> None:
    """Restores a backup, with all that it holds, into the empty database that runs here. live: a connection to it. Raises as load() does."""
    async with _served(path) as (copy, _):
        converted = copy.state_dir / "converted"
        save(BackupSource((copy.remote,)), converted)
        run_tool("ovsdb-client", "--timeout=60", "restore", database.remote, SCHEMA_NAME, stdin=converted)
    await live.transact(*role_operations())  # an older backup has none, or others
