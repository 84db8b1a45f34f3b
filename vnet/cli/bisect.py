"""`vnet bisect`: the change that broke a way between two ends, by asking the twin of the pool as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.history import print_record
from vnet.cli.moment import moment
from vnet.cli.output import dump, echo, output_option, plain, say
from vnet.cli.remote import connected
from vnet.cli.trace import PORT, Question
from vnet.cli.twin import protocol_of

if TYPE_CHECKING:
    from vnet import api
    from vnet.client import Client
    from vnet.sim.trace import Trace

MOST = 20_000  # records that a controller lists


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--tcp", type=PORT, metavar="PORT", help="By this TCP port; without either, by ping.")
@click.option("--udp", type=PORT, metavar="PORT", help="By this UDP port.")
@click.option(
    "--good", metavar="REVISION", callback=moment, help="A revision or time at which it arrived.  [default: looked for]"
)
@output_option
def bisect(source: str, target: str, tcp: int | None, udp: int | None, good: str | None, output: str) -> int:
    """Name the change since which FROM does not reach TO (as for 'vnet trace'), with who made it, when and why.

    Exits with 1 if there is none: it arrives now, or did not at the oldest change that is kept.
    """
    if tcp is not None and udp is not None:
        raise click.UsageError("either --tcp or --udp")
    question = Question(source, target, *protocol_of(tcp, udp), None, None)
    with connected() as client:
        records = [entry for entry in client.history(MOST) if entry.count]
        before, found = _search(records, lambda at: _asked(client, question, at), good)
        change = client.change(found.id)
        ended = _asked(client, question, found.id)
    if output != "table":
        dump(
            {
                "change": plain(change),
                "works_until": plain(before),
                "trace": ended if isinstance(ended, str) else ended.as_dict(),
            },
            output,
        )
        return ExitCode.OK
    print_record(change)
    echo("\nsince then:\n" + (ended if isinstance(ended, str) else ended.render()))
    return ExitCode.OK


Asked = Callable[[str], "Trace | str"]


def _asked(client: Client, question: Question, at: str) -> Trace | str:
    """The trace in the pool as it was; a text where the question makes no sense there, as before there was such a VIF."""
    from vnet.cli.past_twin import past_twin  # noqa: PLC0415 - help need not pay for it
    from vnet.sim import SimError  # noqa: PLC0415

    try:
        traced: Trace = question.put(past_twin(client, at)[0])
        return traced
    except (SimError, CommandError) as error:
        return str(error)


def _search(
    records: list[api.HistoryEntry], asked: Asked, good: str | None
) -> tuple[api.HistoryEntry, api.HistoryEntry]:
    """The last change after which it works, and the next one. Raises CommandError."""

    def works(at: int) -> bool:
        say(f"looking at {_named(records[at])}")
        answer = asked(records[at].id)
        return not isinstance(answer, str) and answer.reached

    if not records:
        raise CommandError("no change is on record")
    bad, step = len(records) - 1, 1
    if works(bad):
        raise CommandError("it arrives now: nothing broke it")
    low = _position(records, good) if good is not None else max(bad - step, 0)
    while not works(low):
        if good is not None:
            raise CommandError(f"it does not arrive at {_named(records[low])} either")
        if low == 0:
            raise CommandError(f"it did not arrive at {_named(records[0])} either, the oldest change that is kept")
        bad, step = low, 2 * step
        low = max(bad - step, 0)
    while bad - low > 1:
        middle = (low + bad) // 2
        low, bad = (middle, bad) if works(middle) else (low, middle)
    return records[low], records[bad]


def _position(records: list[api.HistoryEntry], good: str) -> int:
    """The last record at a moment."""
    found = [
        at
        for at, entry in enumerate(records)
        if good in (entry.id, str(entry.revision)) or (not good.isdigit() and entry.time <= good)
    ]
    if not found:
        raise CommandError(f"--good: there is no change of {good} on record", ExitCode.INVALID_INPUT)
    return found[-1]


def _named(entry: api.HistoryEntry) -> str:
    return f"revision {entry.revision}" if entry.revision is not None else f"the step of {entry.time}"
