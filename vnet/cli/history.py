"""`vnet history`: what was changed in the pool, by whom, from where and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vnet.cli.moment import moment
from vnet.cli.output import Column, dump, echo, emit, output_option, plain
from vnet.cli.remote import connected
from vnet.cli.topology import print_plan
from vnet.util.printable import on_one_line

if TYPE_CHECKING:
    from vnet import api

HISTORY: list[Column] = [
    ("REVISION", lambda e: e.revision),
    ("TIME", lambda e: e.time),
    ("CALLER", lambda e: e.caller),
    ("FROM", lambda e: e.source),
    ("CHANGE", lambda e: e.summary),
    ("DISRUPTION", lambda e: e.disruption),
    ("REASON", lambda e: e.reason),
]
REFUSED: list[Column] = [
    ("TIME", lambda e: e.time),
    ("CALLER", lambda e: e.caller),
    ("FROM", lambda e: e.source),
    ("CALL", lambda e: e.call),
    ("REFUSED", lambda e: e.refused),
    ("COUNT", lambda e: e.count),
    ("WHY", lambda e: e.summary),
]
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "rename": ("~", "yellow"), "delete": ("-", "red")}
CHANGED = ("update", "rename")  # the actions on an object that was there before and is after


@click.command()
@click.argument("revision", required=False)
@click.option("--limit", type=click.IntRange(1, 20_000), default=100, show_default=True, help="How many of the newest.")
@click.option("--caller", help="Only those of this caller, as 'token ci' or 'root'.")
@click.option("--refused", is_flag=True, help="Calls that were refused because of who made them, in place of changes.")
@output_option
def history(revision: str | None, limit: int, caller: str | None, refused: bool, output: str) -> None:
    """The newest changes of the pool, oldest first; of one REVISION, or one id, what was before and after.

    Steps of what runs, as plugs and migrations, raise no revision.
    """
    with connected() as client:
        if revision is None:
            emit(client.history(limit, caller=caller, refused=refused), output, REFUSED if refused else HISTORY)
            return
        entry = client.change(revision)
    if output != "table":
        dump(plain(entry), output)
        return
    print_record(entry)


@click.command()
@click.argument("old", metavar="OLD", callback=moment)
@click.argument("new", metavar="[NEW]", required=False, callback=moment)
@output_option
def diff(old: str, new: str | None, output: str) -> None:
    """What differs between the pool at revision OLD and at NEW, or now: as a plan that makes the one the other. Times will do too."""
    with connected() as client:
        print_plan(client.diff(old, new), output)


def print_record(entry: api.HistoryEntry) -> None:
    number = f"revision {entry.revision}" if entry.revision is not None else f"step {entry.id}"
    echo(on_one_line(f"{number}  {entry.time}  {entry.caller}  from {entry.source or '-'}  {entry.call}"))
    echo(on_one_line(f"disruption: {entry.disruption or '-'}  reason: {entry.reason or '-'}"))
    for change in entry.changes or ():
        sign, colour = _SIGNS.get(change.action, ("?", "white"))
        because = f"   ({_cost(change)})" if change.disruption else ""
        echo(on_one_line(f"{sign} {change.noun} {change.name}{because}"), fg=colour)
        for word in dict.fromkeys((*change.old, *change.new)):
            if change.action in CHANGED or (change.old or change.new)[word] not in (None, [], {}):
                echo(on_one_line(f"    {word}: {_difference(change, word)}"))


def _cost(change: api.HistoryChange) -> str:
    """The reason and the disruption, as the plan's line had them."""
    disturbed = "disrupts nothing" if change.disruption == "none" else f"disruption: {change.disruption}"
    return f"{change.reason}; {disturbed}" if change.reason else disturbed


def _difference(change: api.HistoryChange, word: str) -> str:
    if change.action in CHANGED:
        return f"{_value(change.old.get(word))} -> {_value(change.new.get(word))}"
    return _value((change.old or change.new)[word])


def _value(value: Any) -> str:
    return "-" if value is None or value in ([], {}) else str(value)
