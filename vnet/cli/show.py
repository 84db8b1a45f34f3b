"""Looking at a pool: status, show, events."""

from __future__ import annotations

from typing import Any

import click

from vnet import api
from vnet.cli.exits import Exit
from vnet.cli.output import Column, dump, emit, output_option, plain, table
from vnet.cli.remote import connected, failures, socket_option

HOSTS: list[Column] = [
    ("HOST", lambda h: h.name),
    ("ADDRESS", lambda h: h.address),
    ("UPLINKS", lambda h: [uplink.name for uplink in h.uplinks]),
    ("AGENT", lambda h: "alive" if h.agent.alive else "silent"),
    ("GENERATION", lambda h: f"{h.agent.generation}{f' (-{h.agent.behind})' if h.agent.behind else ''}"),
    ("VIFS", lambda h: h.vifs),
    ("PROBLEMS", lambda h: len(h.agent.problems) or None),
]
NETWORKS: list[Column] = [
    ("NETWORK", lambda n: n.name),
    ("TYPE", lambda n: n.type),
    ("KEY", lambda n: n.key),
    ("TAG", lambda n: n.tag),
    ("UPLINK", lambda n: n.uplink),
    ("MTU", lambda n: n.mtu),
    ("HOSTS", lambda n: n.hosts or "all"),
    ("VIFS", lambda n: n.vifs),
    ("OWNER", lambda n: n.owner),
]
GROUPS: list[Column] = [
    ("SECURITY GROUP", lambda g: g.name),
    ("INGRESS", lambda g: g.ingress),
    ("EGRESS", lambda g: g.egress),
    ("RULES", lambda g: [rule.name for rule in g.rules]),
    ("VIFS", lambda g: g.vifs),
    ("OWNER", lambda g: g.owner),
]
VIFS: list[Column] = [
    ("VIF", lambda v: v.id),
    ("NETWORK", lambda v: v.network),
    ("MAC", lambda v: v.mac),
    ("ADDRESSES", lambda v: v.addresses),
    ("HOST", lambda v: v.place.host),
    ("STATE", lambda v: v.place.state),
    ("SINCE", lambda v: v.place.since),
    ("WHY", lambda v: "; ".join(reason.text for reason in v.place.why)),
]
BINDINGS: list[Column] = [
    ("VIF", lambda b: b.vif),
    ("HOST", lambda b: b.host),
    ("STATE", lambda b: b.state),
    ("READY", lambda b: "yes" if b.ready else "no"),
    ("EPOCH", lambda b: b.epoch),
    ("ACKNOWLEDGED", lambda b: b.acked),
    ("SINCE", lambda b: b.since),
]
EVENTS: list[Column] = [
    ("TIME", lambda e: e.time),
    ("KIND", lambda e: e.kind),
    ("HOST", lambda e: e.host),
    ("VIF", lambda e: e.vif),
    ("TEXT", lambda e: e.text),
]
FLOWS: list[Column] = [
    ("TABLE", lambda f: f"{f['number']} {f['table']}"),
    ("PACKETS", lambda f: str(f["packets"])),
    ("FROM", lambda f: f["source"]),
    ("FLOW", lambda f: f["flow"]),
]


@click.command()
@output_option
def status(output: str) -> None:
    """The pool at a glance: what is there, and what is not as desired and why."""
    with connected() as client:
        now = client.status()
    if output != "table":
        dump(plain(now), output)
        return
    for line in _status_lines(now):
        click.echo(line)


def _status_lines(now: api.Status) -> list[str]:
    pool = now.pool
    name = (
        f"{pool.name} (revision {pool.revision}, generation {pool.generation})" if pool else "empty: apply a document"
    )
    states = ", ".join(f"{count} {state}" for state, count in now.vifs.items() if count) or "none"
    lines = [
        f"pool      {name}",
        f"database  {' '.join(now.database)}",
        f"hosts     {now.live_hosts} of {now.hosts} alive",
        f"networks  {now.networks}",
        f"VIFs      {states}",
    ]
    if now.problems:
        lines += ["", click.style("not as desired:", fg="yellow"), *(f"  {problem.text}" for problem in now.problems)]
    return lines


@click.group()
def show() -> None:
    """List what is in the pool."""


@show.command()
@output_option
def hosts(output: str) -> None:
    """The hosts, and what their agents say."""
    with connected() as client:
        emit(client.hosts(), output, HOSTS)


@show.command()
@output_option
def networks(output: str) -> None:
    """The networks."""
    with connected() as client:
        emit(client.networks(), output, NETWORKS)


@show.command("security-groups")
@output_option
def security_groups(output: str) -> None:
    """The security groups, and what they do where no rule matches; with -o yaml their rules."""
    with connected() as client:
        emit(client.security_groups(), output, GROUPS)


def vif_filters(function: Any) -> Any:
    """The filters of a list of VIFs."""
    for name in ("vm", "network", "host"):
        function = click.option(f"--{name}", metavar="NAME", help=f"Only of this {name}.")(function)
    states = click.Choice(["defined", "awaited", "claimed", "ready"])
    return click.option("--state", type=states, help="Only in this state.")(function)


@show.command()
@vif_filters
@output_option
def vifs(host: str | None, network: str | None, vm: str | None, state: str | None, output: str) -> None:
    """The VIFs, where they are and why not ready."""
    with connected() as client:
        emit(client.vifs(host=host, network=network, vm=vm, state=state), output, VIFS)


@show.command()
@click.option("--vif", metavar="ID", help="Only of this VIF.")
@click.option("--host", metavar="NAME", help="Only of this host.")
@output_option
def bindings(vif: str | None, host: str | None, output: str) -> None:
    """Which host has which VIF, in which state, and who knows."""
    with connected() as client:
        emit(client.bindings(vif=vif, host=host), output, BINDINGS)


@show.command()
@click.option("--vif", metavar="ID", help="Only those of this VIF.")
@socket_option
@output_option
def flows(vif: str | None, socket: str, output: str) -> None:
    """This host's flows, by table, with how many packets each has seen."""
    from vnet.client.local import call_agent  # noqa: PLC0415 - loads an HTTP library

    with failures():
        found = call_agent("flows", {"vif": vif} if vif is not None else {}, socket)
    if output != "table":
        dump(found, output)
        return
    does = dict.fromkeys((flow["number"], flow["table"], flow["does"]) for flow in found)
    for number, name, text in does:
        click.echo(click.style(f"table {number} {name}", bold=True) + (f": {text}" if text else ""))
    click.echo()
    click.echo("\n".join(table(found, FLOWS)))


@click.command()
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=50, show_default=True, help="How many of the newest.")
@click.option("--kind", metavar="KIND", help="Only of this kind.")
@click.option("--host", metavar="NAME", help="Only of this host.")
@click.option("--network", metavar="NAME", help="Only of this network.")
@click.option("--vif", metavar="ID", help="Only of this VIF.")
@output_option
def events(follow: bool, limit: int, output: str, **filters: str | None) -> int:
    """What happened in the pool. With --follow, JSON is one object a line and YAML one document each."""
    chosen = {name: value for name, value in filters.items() if value is not None}
    with connected() as client:
        if not follow:
            emit(client.events(limit, **chosen), output, EVENTS)
            return Exit.OK
        try:
            for event in client.follow(limit=str(limit), **chosen):
                _print_event(event, output)
        except KeyboardInterrupt:
            return Exit.OK
    return Exit.OK


def _print_event(event: api.Event, output: str) -> None:
    import json  # noqa: PLC0415

    if output == "json":
        click.echo(json.dumps(plain(event), ensure_ascii=False))
    elif output == "yaml":
        click.echo("---")
        dump(plain(event), output)
    else:
        click.echo("  ".join(filter(None, (event.time, event.kind, event.host, event.vif, event.text))))
