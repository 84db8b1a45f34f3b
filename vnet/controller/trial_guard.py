"""What may change while a revision is on trial. One rule: nothing that would keep it from being taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vnet.api.errors import Conflict
from vnet.controller.presenters import timestamp
from vnet.db.changes import RowChange
from vnet.db.database import PoolDatabase
from vnet.db.history import RecordedChange, decoded
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared
from vnet.objects.state import CONFIGURED
from vnet.objects.trial import Trial
from vnet.plan.decide import Inadmissible
from vnet.plan.past import check_reversible


class TrialGuard:
    """Keeps a trial reversible. It remembers what the last one changed."""

    def __init__(self, database: PoolDatabase) -> None:
        self._database = database
        self._changes: tuple[int, Sequence[RecordedChange]] = (0, ())

    async def changes_of(self, trial: Trial) -> Sequence[RecordedChange]:
        """What the revision on trial changed. Raises PoolUnreachable, ValueError."""
        if self._changes[0] != trial.revision:
            rows = await self._database.records((("revision", "==", trial.revision),), ("changes",))
            if not rows:
                raise ValueError(f"there is no record of revision {trial.revision}")
            self._changes = trial.revision, decoded(rows[0]["changes"])
        return self._changes[1]

    def check_none(self) -> None:
        """Raises Conflict while a revision is on trial."""
        if (trial := self._database.mirror.trial) is not None:
            raise Conflict(
                "on-trial",
                f"{_named(trial)}: confirm it ('vnet confirm'), have it taken back ('vnet revert'), or wait",
                "trial",
            )

    async def check(self, changes: Sequence[RowChange], view: PoolView) -> None:
        """Raises Conflict for changes after which a revision on trial could not be taken back. Raises PoolUnreachable."""
        if (trial := self._database.mirror.trial) is None:
            return
        try:
            check_reversible(view, _by_name(changes), [await self.changes_of(trial)])
        except Inadmissible as error:
            raise Conflict(
                "on-trial", f"{_named(trial)}, and could not be taken back after this: {error}", "trial"
            ) from None
        except ValueError as error:
            raise Conflict("on-trial", f"{_named(trial)}: {error}", "trial") from None


def _named(trial: Trial) -> str:
    reason = f" ({trial.reason})" if trial.reason else ""
    return f"revision {trial.revision} of {trial.caller}{reason} is on trial until {timestamp(trial.ends)}"


def _by_name(changes: Sequence[RowChange]) -> dict[str, dict[str, Any]]:
    """The objects that are configured, as they become, by PoolState's mapping and name."""
    found: dict[str, dict[str, Any]] = {}
    for change in changes:
        subject: Declared = change.new if change.new is not None else change.old
        if isinstance(subject, CONFIGURED):
            noun = subject.NOUN
            found.setdefault(noun.state, {})[getattr(subject, noun.key)] = change.new
    return found
