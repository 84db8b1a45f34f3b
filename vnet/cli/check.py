"""`vnet check` and `vnet matrix`: reachability in a document's pool, before there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from vnet.cli.ci_reports import CaseResult, report, report_options
from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.moment import at_option
from vnet.cli.output import dump, echo, output_option, progress
from vnet.cli.remote import connected
from vnet.cli.twin import document_of, protocol_of, refusals, twin_of, twin_of_past

if TYPE_CHECKING:
    from vnet.sim import SimPool
    from vnet.topology import Document
    from vnet.verify.expectations import Result
    from vnet.verify.failures import Failure, Outcome

PORT = click.IntRange(1, 65535)


def failure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What fails: `down`, `cuts` and `each`."""
    for option in (
        click.option("--each-failure", "each", is_flag=True, help="Under every single failure of a host, NIC, uplink, or way to the others."),
        click.option("--if-cut", "cuts", multiple=True, metavar="[HOST:]LINK", help="If this link is cut: trunk0 on every host, xen1:trunk0, xen1:eth1, xen1:underlay."),
        click.option("--if-down", "down", multiple=True, metavar="HOST", help="If this host is down. Several of these fail together."),
    ):  # fmt: skip
        command = option(command)
    return command


def _each_alone(down: tuple[str, ...], cuts: tuple[str, ...], each: bool) -> None:
    if each and (down or cuts):
        raise click.UsageError("--each-failure tries each alone: leave --if-down and --if-cut out")


def _failures(pool: SimPool, down: tuple[str, ...], cuts: tuple[str, ...], each: bool) -> list[Failure]:
    """What the options say. Raises SimError for a name that the pool does not have."""
    from vnet.verify import failures  # noqa: PLC0415

    if each:
        return [*failures.each_failure(pool)]
    return [*(failures.down(pool, name) for name in down), *(failures.cut(pool, name) for name in cuts)]


file_or_past = click.argument("file", type=click.Path(allow_dash=True), metavar="[FILE]", required=False)


@click.command()
@file_or_past
@at_option
@click.option(
    "--live",
    is_flag=True,
    help="Against the switches of the pool that runs, and with real packets, which no guest gets.",
)
@click.option(
    "--wait", "wait_s", type=float, default=5.0, show_default=True, help="Seconds a host has to answer --live."
)
@click.option("--full", is_flag=True, help="Every step also of ARP and of other packets that only help.")
@failure_options
@report_options
@output_option
def check(
    file: str | None,
    at: str | None,
    live: bool,
    wait_s: float,
    full: bool,
    down: tuple[str, ...],
    cuts: tuple[str, ...],
    each: bool,
    junit: str | None,
    annotate: str | None,
    output: str,
) -> int:
    """Hold the expectations of FILE against FILE's pool on its twin, or against the running pool. Exits with 3, and the trace, if one fails.

    With --at against the pool as it was; without FILE its own expectations of then. What has an end on a host that is down is not asked."""
    from vnet.verify.expectations import check as check_all  # noqa: PLC0415 - help need not pay for it

    if live and (down or cuts or each):
        raise click.UsageError("--live tries the pool as it is: failures are tried on its twin")
    _each_alone(down, cuts, each)
    if live and (at is not None or file is None):
        raise click.UsageError("--live takes FILE, and no --at")
    with refusals():
        pool, document = _pool_of(file, at)
        if each:
            return _check_each(pool, document, output, junit, annotate)
        if down or cuts:
            results = _check_failing(pool, document, down, cuts)
        else:
            results = _live(document, wait_s) if live else check_all(pool, document)
    cases = (CaseResult(result.name, result.position, "" if result.holds else str(result)) for result in results)
    report("vnet check", cases, junit, annotate)
    failed = [result for result in results if not result.holds]
    if output == "table":
        for result in results:
            text = str(result) if result.asked else f"-     {result.name}: an end of it is on a host that is down"
            echo(text, fg=None if result.holds else "red")
            if result.trace is not None:
                echo("\n".join(f"      {line}" for line in result.trace.render(full).splitlines()))
        asked = sum(result.asked for result in results)
        echo(f"{asked - len(failed)} of {asked} expectations hold", err=True)
    else:
        rows = [
            {
                "name": result.name,
                "holds": result.holds if result.asked else None,
                "where": result.position,
                "why": result.reason,
                "trace": result.trace.as_dict() if result.trace else None,
            }
            for result in results
        ]
        dump(rows, output)
    return ExitCode.EXPECTATION_FAILED if failed else ExitCode.OK


def _pool_of(file: str | None, at: str | None) -> tuple[SimPool, Document]:
    """The twin of FILE's pool, or of the pool as it was, and the document that asks."""
    if at is None and file is None:
        raise click.UsageError("name FILE, or a moment of the pool with --at")
    pool = twin_of_past(at) if at is not None else twin_of(document_of(file or ""))
    document = document_of(file) if at is not None and file is not None else pool.document
    if document is None:
        raise CommandError("there was no pool", ExitCode.INVALID_INPUT)
    return pool, document


def _check_failing(pool: SimPool, document: Document, down: tuple[str, ...], cuts: tuple[str, ...]) -> Sequence[Result]:
    """The expectations of a document while all of this fails together."""
    from vnet.verify.failures import outcomes  # noqa: PLC0415

    (outcome,) = outcomes(pool, document, [_failures(pool, down, cuts, each=False)])
    return outcome.results


def _check_each(pool: SimPool, document: Document, output: str, junit: str | None, annotate: str | None) -> int:
    """The expectations of a document under each single failure: a row of marks for each, and why an expectation fails."""
    from vnet.verify.failures import FailureVerdict, outcomes, verdict_of  # noqa: PLC0415

    cases = [(), *((failure,) for failure in _failures(pool, (), (), each=True))]
    found = []
    for outcome in outcomes(pool, document, cases):
        found.append(outcome)
        if len(found) % 10 == 0:
            progress(f"{len(found)} of {len(cases)} failures tried")
    cases_of = (
        CaseResult(f"{outcome}: {result.name}", result.position, f"{outcome}: {result}" if not result.holds else "")
        for outcome in found
        for result in outcome.results
    )
    report("vnet check --each-failure", cases_of, junit, annotate)
    failed = any(FailureVerdict.FAILS in outcome.verdicts() for outcome in found)
    if output == "table":
        for line, bad in _each_lines(document, found):
            echo(line, fg="red" if bad else None)
    else:
        rows = [
            {
                "failure": str(outcome) if outcome.failures else None,
                "expectations": [
                    {"name": r.name, "verdict": verdict_of(r).value, "where": r.position, "why": r.reason}
                    for r in outcome.results
                ],
            }
            for outcome in found
        ]
        dump(rows, output)
    return ExitCode.EXPECTATION_FAILED if failed else ExitCode.OK


def _each_lines(document: Document, found: Sequence[Outcome]) -> Iterator[tuple[str, bool]]:
    """The lines of the table, each with whether it is about something that fails."""
    from vnet.verify.failures import FailureVerdict, verdict_of  # noqa: PLC0415

    marks = {FailureVerdict.HOLDS: "+", FailureVerdict.FAILS: "!", FailureVerdict.GONE: "."}
    numbers = range(1, len(document.expectations) + 1)
    width, longest = len(str(len(numbers))), max(len(str(outcome)) for outcome in found)
    yield f"{'':<{longest}}  {' '.join(f'{number:>{width}}' for number in numbers)}", False
    for outcome in found:
        verdicts = outcome.verdicts()
        cells = " ".join(f"{marks[verdict]:>{width}}" for verdict in verdicts)
        yield f"{outcome!s:<{longest}}  {cells}", FailureVerdict.FAILS in verdicts
    yield "+ holds, ! fails, . has an end on the host that is down", False
    for number, spec in zip(numbers, document.expectations, strict=True):
        yield f"{number:>{width}}  {spec.name}", False
    for outcome in found:
        for result in outcome.results:
            if verdict_of(result) is FailureVerdict.FAILS:
                yield f"{outcome}: {result}", True


def _live(document: Document, wait_s: float) -> list[Result]:
    from random import SystemRandom  # noqa: PLC0415

    from vnet.cli.live_pool import twin_of_running  # noqa: PLC0415
    from vnet.probe.controller_client import asker, sender  # noqa: PLC0415
    from vnet.probe.live_expectations import check_live  # noqa: PLC0415

    with connected() as client:
        pool = twin_of_running(client)
        return check_live(pool, asker(client, wait_s), sender(client, wait_s), document, SystemRandom())


@click.command()
@file_or_past
@at_option
@click.option("--tcp", type=PORT, metavar="PORT", help="By this TCP port; without either, by ping.")
@click.option("--udp", type=PORT, metavar="PORT", help="By this UDP port.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "svg", "html"]), default="table", show_default=True)
@click.option(
    "--since", "old", metavar="OLD", help="Only pairs that became reachable or unreachable since this document."
)
@failure_options
def matrix(
    file: str | None,
    at: str | None,
    tcp: int | None,
    udp: int | None,
    output: str,
    old: str | None,
    down: tuple[str, ...],
    cuts: tuple[str, ...],
    each: bool,
) -> None:
    """Reachability in the pool of FILE, or with --at in the pool as it was, by classes of equal VIFs. With --each-failure also the pairs that some failure parts."""
    from vnet.verify import picture  # noqa: PLC0415
    from vnet.verify.failures import failing, lost_pairs  # noqa: PLC0415
    from vnet.verify.reachability import Reachability  # noqa: PLC0415

    if file is not None and at is not None:
        raise click.UsageError("either FILE or --at")
    if old is not None and file is not None:
        if down or cuts or each:
            raise click.UsageError("--since compares pools in which nothing fails")
        if tcp is not None or udp is not None:
            raise click.UsageError("--since compares every port: leave --tcp and --udp out")
        _differences(file, old, output)
        return

    if tcp is not None and udp is not None:
        raise click.UsageError("either --tcp or --udp")
    _each_alone(down, cuts, each)
    with refusals():
        pool, document = _pool_of(file, at)
        tried = _failures(pool, down, cuts, each)
        with failing(pool, () if each else tried):
            reach = Reachability(pool, *protocol_of(tcp, udp))
            reach.matrix()
        lost = lost_pairs(reach, pool, tried) if each else None
        if output == "json":
            failures = [
                {"from": source, "to": target, "failures": list(map(str, which))}
                for (source, target), which in sorted((lost or {}).items())
            ]
            dump(reach.as_dict() | ({"lost": failures} if each else {}), output)
        elif output == "table":
            echo(picture.table(reach, lost))
        else:
            echo(picture.svg(reach, lost) if output == "svg" else picture.html(reach, document.pool, lost))


def _differences(file: str, old: str, output: str) -> None:
    from vnet.objects import PoolState  # noqa: PLC0415
    from vnet.plan import desired_state  # noqa: PLC0415
    from vnet.verify.differential_reachability import differences  # noqa: PLC0415

    if output not in ("table", "json"):
        raise click.UsageError("--since prints a table or JSON")
    with refusals():
        before = desired_state(document_of(old), PoolState())
        # Fields that the new document leaves out, such as MACs, are kept from the old one, as an apply would.
        found = differences(before, desired_state(document_of(file), before))
    if output == "table":
        for line in sorted(map(str, found)):
            echo(line, fg="green" if line.startswith("+") else "red")
        return
    rows = [
        {"gained": d.gained, "sources": list(d.sources), "targets": list(d.targets), "what": list(d.services)}
        for d in found
    ]
    dump({"differences": rows}, output)
