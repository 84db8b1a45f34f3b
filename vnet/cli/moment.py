"""Moments of the past on the command line: a revision, the id of a record, or a time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import click

_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")


def moment_of(text: str, now: datetime) -> str:
    """The moment as the API takes it. now: with its time zone, which times without one are in; HH:MM is the last one. Raises ValueError."""
    if (clock := _CLOCK.fullmatch(text)) is not None:
        hour, minute, second = (int(part or 0) for part in clock.groups())
        found = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
        return _utc(found if found <= now else found - timedelta(days=1))
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return text
    found = datetime.fromisoformat(text)
    return _utc(found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo))


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """The callback of a parameter that is a moment."""
    try:
        return None if text is None else moment_of(text, datetime.now().astimezone())
    except ValueError as error:
        raise click.BadParameter(f"{text}: {error}: a revision, or a time such as 10:42 or 2026-01-31T10:42") from None


at_option = click.option(
    "--at",
    metavar="REVISION",
    callback=moment,
    help="As the pool was at this revision, or time: 41, 10:42, 2026-01-31T10:42.",
)
