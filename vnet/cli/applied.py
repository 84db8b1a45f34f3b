"""What commands that make the pool another one tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.cli.exits import ExitCode
from vnet.cli.output import dump, plain, say

if TYPE_CHECKING:
    from vnet import api


def report_applied(applied: api.Applied, output: str) -> int:
    """Tell which hosts have not followed. Dead ones are no failure, since they follow when they are back; all of them are."""
    if output != "table":
        dump(plain(applied), output)
    for host in applied.dead:
        say(f"host {host} does not report: it will follow when it is back")
    for host in applied.waiting:
        say(f"host {host} has not programmed generation {applied.generation} yet")
    for problem in applied.problems:
        say(problem.text)
    followed, hosts = len(applied.acknowledged), len(applied.acknowledged + applied.waiting + applied.dead)
    if applied.plan.changes:
        failing = len({problem.host for problem in applied.problems})
        count = f"{hosts} hosts" if followed == hosts else f"{followed} of {hosts} hosts"
        say(
            f"applied: revision {applied.revision}, on {count}{f', {failing} of them with problems' if failing else ''}"
        )
    incomplete = applied.waiting or applied.problems or (hosts and not followed)
    return ExitCode.NOT_FOLLOWED if incomplete else ExitCode.OK
