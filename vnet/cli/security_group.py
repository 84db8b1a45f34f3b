"""Security groups on the command line, and what their rules have matched."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vnet import api
from vnet.cli.nouns import noun_group
from vnet.cli.output import Column, dump, output_option, plain, print_table, say
from vnet.cli.remote import connected

RULES: list[Column] = [
    ("GROUP", lambda r: r["group"]),
    ("RULE", lambda r: r["rule"] or "(default)"),
    ("TIER", lambda r: r.get("tier", "vif")),
    ("DIRECTION", lambda r: r["direction"]),
    ("ACTION", lambda r: r["action"]),
    ("PACKETS", lambda r: str(r["packets"])),
    ("BYTES", lambda r: str(r["bytes"])),
]

security_group = noun_group("security-group")


@security_group.command()
@click.argument("name")
@output_option
def counters(name: str, output: str) -> None:
    """What each rule of a security group has matched, summed over the hosts that have VIFs in it."""
    with connected() as client:
        print_counters([client.group_counters(name)], output)


def print_counters(groups: Sequence[api.GroupCounters], output: str) -> None:
    """The counters of groups; the hosts that are missing in the sums go to standard error."""
    if output != "table":
        dump(plain(groups), output)
        return
    print_table([{"group": group.security_group, **plain(rule)} for group in groups for rule in group.rules], RULES)
    missing = {host: reason for group in groups for host, reason in group.missing.items()}
    for host, reason in sorted(missing.items()):
        say(f"not in the sums: host {host}: {reason}")
