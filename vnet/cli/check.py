"""`vnet check` and `vnet matrix`: reachability in a document's pool, before there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vnet.cli.exits import Exit
from vnet.cli.output import dump, echo, output_option
from vnet.cli.remote import connected
from vnet.cli.topology import file_argument
from vnet.cli.twin import document_of, protocol_of, refusals, twin_of

if TYPE_CHECKING:
    from vnet.topology import Document
    from vnet.verify.expectations import Result

PORT = click.IntRange(1, 65535)


@click.command()
@file_argument
@click.option(
    "--live",
    is_flag=True,
    help="Against the switches of the pool that runs, and with real packets, which no guest gets.",
)
@click.option(
    "--wait", "wait_s", type=float, default=5.0, show_default=True, help="Seconds a host has to answer --live."
)
@click.option("--full", is_flag=True, help="Every step also of ARP and of other packets that only help.")
@output_option
def check(file: str, live: bool, wait_s: float, full: bool, output: str) -> int:
    """Hold the expectations of FILE against FILE's pool on its twin, or against the running pool. Exits with 3, and the trace, if one fails."""
    from vnet.verify.expectations import check as check_all  # noqa: PLC0415 - help need not pay for it

    document = document_of(file)
    with refusals():
        results = _live(document, wait_s) if live else check_all(twin_of(document), document)
    failed = [result for result in results if not result.holds]
    if output == "table":
        for result in results:
            echo(str(result), fg=None if result.holds else "red")
            if result.trace is not None:
                echo("\n".join(f"      {line}" for line in result.trace.render(full).splitlines()))
        echo(f"{len(results) - len(failed)} of {len(results)} expectations hold", err=True)
    else:
        rows = [
            {
                "name": result.name,
                "holds": result.holds,
                "where": result.position,
                "why": result.reason,
                "trace": result.trace.as_dict() if result.trace else None,
            }
            for result in results
        ]
        dump(rows, output)
    return Exit.EXPECTATION_FAILED if failed else Exit.OK


def _live(document: Document, wait_s: float) -> list[Result]:
    from random import SystemRandom  # noqa: PLC0415

    from vnet.cli.live_pool import twin_of_running  # noqa: PLC0415
    from vnet.probe.controller_client import asker, sender  # noqa: PLC0415
    from vnet.probe.live_expectations import check_live  # noqa: PLC0415

    with connected() as client:
        pool = twin_of_running(client)
        return check_live(pool, asker(client, wait_s), sender(client, wait_s), document, SystemRandom())


@click.command()
@file_argument
@click.option("--tcp", type=PORT, metavar="PORT", help="By this TCP port; without either, by ping.")
@click.option("--udp", type=PORT, metavar="PORT", help="By this UDP port.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "svg", "html"]), default="table", show_default=True)
@click.option(
    "--since", "old", metavar="OLD", help="Only pairs that became reachable or unreachable since this document."
)
def matrix(file: str, tcp: int | None, udp: int | None, output: str, old: str | None) -> None:
    """Reachability in the pool of FILE, by classes of equal VIFs."""
    from vnet.verify import picture  # noqa: PLC0415
    from vnet.verify.reachability import Reachability  # noqa: PLC0415

    if old is not None:
        if tcp is not None or udp is not None:
            raise click.UsageError("--since compares every port: leave --tcp and --udp out")
        _differences(file, old, output)
        return

    if tcp is not None and udp is not None:
        raise click.UsageError("either --tcp or --udp")
    document = document_of(file)
    with refusals():
        reach = Reachability(twin_of(document), *protocol_of(tcp, udp))
        if output == "json":
            dump(reach.as_dict(), output)
        elif output == "table":
            echo(picture.table(reach))
        else:
            echo(picture.svg(reach) if output == "svg" else picture.html(reach, document.pool))


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
