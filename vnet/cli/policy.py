"""Security groups in monitor mode: what they would forbid, and the rules that would allow it."""

from __future__ import annotations

import click

from vnet import api
from vnet.cli.output import Column, dump, echo, output_option, plain, print_table, say
from vnet.cli.remote import connected
from vnet.util.printable import on_one_line

CONNECTIONS: list[Column] = [
    ("VIF", lambda c: c.vif),
    ("DIRECTION", lambda c: c.direction),
    ("PEER", lambda c: c.peer),
    ("SERVICE", lambda c: c.protocol if not c.port else f"{c.protocol} {'from ' if c.answers else ''}{c.port}"),
    ("RULE", lambda c: c.rule or "(default)"),
    ("SEEN", lambda c: str(c.count)),
    ("LAST", lambda c: c.last),
]


@click.group()
def policy() -> None:
    """What security groups in monitor mode would forbid."""


@policy.command("show")
@click.argument("group")
@output_option
def show_monitored(group: str, output: str) -> None:
    """What a group in monitor mode would have forbidden, per pair of VIFs, on all hosts together.

    Of what floods, hosts look at a sample; the totals are exact.
    """
    with connected() as client:
        found = client.monitored(group)
    if output != "table":
        dump(plain(found), output)
        return
    print_table(found.connections, CONNECTIONS)
    for total in found.vifs:
        echo(f"{total.vif} {total.direction}: {total.begun} begun, {total.running} packets of what ran on")
    _say_missing(found)


@policy.command()
@click.argument("group")
def suggest(group: str) -> None:
    """Write the rules that what was seen needs, as YAML to put into the document. Read them first: what was seen may be hostile."""
    with connected() as client:
        found, rules = client.monitored(group), client.security_group(group).rules
    for note in found.notes:
        echo(f"# {on_one_line(note)}")
    if not found.suggested:
        say("nothing was seen that a rule would have to allow")
    wanted = [*map(_words, rules), *map(_words, found.suggested)]
    dump({"security-groups": {group: {"rules": wanted}}}, "yaml")
    _say_missing(found)


def _words(rule: api.Rule) -> dict[str, object]:
    """A rule in a document's words, without what it would have anyway."""
    bare = api.Rule(name="", direction="ingress")
    words = {name: value for name, value in plain(rule).items() if value != plain(bare)[name]}
    return {"name": rule.name, "direction": rule.direction, **{name.replace("_", "-"): words[name] for name in words}}


def _say_missing(found: api.Monitored) -> None:
    if found.mode != "monitor":
        say(f"security group {found.security_group} is in mode {found.mode}: it counts in mode monitor only")
    for host, reason in sorted(found.missing.items()):
        say(f"not in the sums: host {host}: {reason}")
