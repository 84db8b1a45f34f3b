"""Looking at a pool: status, show, events."""

from __future__ import annotations

import click

from vnet import api
from vnet.api import RESOURCES
from vnet.cli.exits import ExitCode
from vnet.cli.nouns import list_command
from vnet.cli.output import Column, dump, echo, emit, output_option, plain, print_table
from vnet.cli.remote import connected, failures, socket_option
from vnet.cli.security_group import RULES, print_counters
from vnet.util.printable import on_one_line

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
GROUPS: list[Column] = [
    ("NETWORK", lambda g: g["network"]),
    ("GROUP", lambda g: g["group"]),
    ("VIF", lambda g: g["vif"]),
    ("HOST", lambda g: g["host"]),
]
RATES: list[Column] = [
    ("OF", lambda r: r["of"]),
    ("DIRECTION", lambda r: r["direction"]),
    ("LIMIT", lambda r: f"{r['limit']} {r['unit']}"),
    ("BURST", lambda r: f"{r['burst']} {r['unit'].removesuffix('/s')}"),
    ("PACKETS", lambda r: str(r["packets"])),
    ("BYTES", lambda r: str(r["bytes"])),
    ("DROPPED", lambda r: str(r["dropped_packets"])),
    ("DROPPED BYTES", lambda r: str(r["dropped_bytes"])),
]
FLOWS: list[Column] = [
    ("TABLE", lambda f: f"{f['number']} {f['table']}"),
    ("PACKETS", lambda f: str(f["packets"])),
    ("FROM", lambda f: f["source"]),
    ("FLOW", lambda f: f["flow"]),
]


SHOWN = 20  # VIFs whose connections are picked up, in status: after an evacuation these are many


@click.command()
@output_option
def status(output: str) -> None:
    """The pool at a glance, and everything that is not as desired."""
    with connected() as client:
        now = client.status()
    if output != "table":
        dump(plain(now), output)
        return
    _print_status(now)


def _print_status(now: api.Status) -> None:
    pool = now.pool
    name = (
        f"{pool.name} (revision {pool.revision}, generation {pool.generation})" if pool else "empty: apply a document"
    )
    states = ", ".join(f"{count} {state}" for state, count in now.vifs.items() if count) or "none"
    for line in (
        f"pool      {name}",
        f"database  {' '.join(now.database)}",
        f"hosts     {now.live_hosts} of {now.hosts} alive",
        f"networks  {now.networks}",
        f"VIFs      {states}",
    ):
        echo(line)
    if now.trial is not None:
        who = f" ({now.trial.reason})" if now.trial.reason else ""
        text = f"on trial  revision {now.trial.revision} of {now.trial.caller}{who}, {now.trial.seconds} s more: 'vnet confirm' keeps it"
        echo(on_one_line(text), fg="yellow")
    for follower in now.followers:
        standby = f"; {follower.standby} stands by" if follower.standby else ""
        echo(on_one_line(f"follower  {follower.name}: {follower.holder or 'nobody'}{standby}"))
    if now.moving:
        echo("\nmoving:")
    for move in now.moving:
        echo(f"  {on_one_line(_moving(move))}")
    if now.picking_up:
        echo("\nconnections, for 300 s at most:")
    for reason in now.picking_up[:SHOWN]:
        echo(f"  {on_one_line(reason.text)}")
    if (more := len(now.picking_up) - SHOWN) > 0:
        echo(f"  and {more} more VIFs: -o json lists them")
    if now.elsewhere:
        echo("\nwithout an agent on them, and so without some parts ('vnet doctor' beside the agent lists it):")
    for host, machine in now.elsewhere.items():
        echo(f"  {host}: its agent runs on {machine}")
    if now.problems:
        echo("\nnot as desired:", fg="yellow")
    for problem in now.problems:
        echo(f"  {on_one_line(problem.text)}")


def _moving(move: api.Move) -> str:
    way = move.migration
    waiting = "; ".join(way.waiting) or {"prepared": "waits for the guest to announce itself"}.get(way.phase, "")
    return (
        f"{move.unit}: {way.source or 'nowhere'} to {way.destination}, {way.phase}{f': {waiting}' if waiting else ''}"
    )


@click.group()
def show() -> None:
    """List objects, bindings or this host's flows."""


for resource in RESOURCES.values():
    show.add_command(list_command(resource, resource.plural))


@show.command()
@click.option("--vif", metavar="ID", help="Only of this VIF.")
@click.option("--host", metavar="NAME", help="Only of this host.")
@output_option
def bindings(vif: str | None, host: str | None, output: str) -> None:
    """List the hosts' bindings of VIFs: their states, and the hosts that have programmed each."""
    with connected() as client:
        emit(client.bindings(vif=vif, host=host), output, BINDINGS)


@show.command()
@click.option("--network", metavar="NAME", help="Only of this network.")
@click.option("--vif", metavar="ID", help="Only of this VIF.")
@output_option
def multicast(network: str | None, vif: str | None, output: str) -> None:
    """List the multicast groups that VIFs listen to, on networks that snoop on IGMP and MLD."""
    with connected() as client:
        snooping = {
            found.name for found in client.networks() if found.multicast_snooping and network in (None, found.name)
        }
        bindings = [found for found in client.bindings(vif=vif) if found.network in snooping]
    if not snooping:
        echo(
            "no network has multicast-snooping" if network is None else f"network {network} has no multicast-snooping",
            err=True,
        )
    found = (
        {"network": binding.network, "group": group, "vif": binding.vif, "host": binding.host}
        for binding in bindings
        for group in _groups(binding)
    )
    emit(sorted(found, key=lambda row: tuple(row.values())), output, GROUPS)


def _groups(binding: api.Binding) -> list[str]:
    """What a VIF gets, in words where it is every group."""
    from vnet.objects.multicast import ASKED, EVERY, ROUTER  # noqa: PLC0415 - loads all objects, which status does without

    if ASKED not in binding.listening:
        return ["every group: not known yet what it listens to"]
    words = {ROUTER: "every group: a multicast router", EVERY: "every group: it listens to too many"}
    return [words.get(word, word) for word in binding.listening if word != ASKED]


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
        echo(f"table {number} {name}", bold=True, nl=not text)
        if text:
            echo(f": {text}")
        asks = {tuple(flow["asks"]): None for flow in found if flow["number"] == number and flow["asks"]}
        for steps in asks if vif is not None else ():
            echo(f"  asks, till a step has decided: {'; '.join(steps)}")
    echo()
    print_table(found, FLOWS)


@show.command()
@click.option("--vif", metavar="ID", help="Only those of this VIF.")
@socket_option
@output_option
def rates(vif: str | None, socket: str, output: str) -> None:
    """This host's rate limits, with how much has come to each and how much it dropped."""
    from vnet.client.local import call_agent  # noqa: PLC0415 - loads an HTTP library

    with failures():
        found = call_agent("rates", {"vif": vif} if vif is not None else {}, socket)
    if output != "table":
        dump(found, output)
    else:
        print_table(found, RATES)


@show.command()
@click.option("--group", metavar="NAME", help="Only those of this security group.")
@click.option("--here", is_flag=True, help="Only what this host has counted, by its agent's socket.")
@socket_option
@output_option
def rules(group: str | None, here: bool, socket: str, output: str) -> None:
    """The rules of security groups, with the packets that each has matched on all hosts together."""
    if here:
        _rules_here(group, socket, output)
        return
    with connected() as client:
        names = [group] if group is not None else [found.name for found in client.security_groups()]
        print_counters([client.group_counters(name) for name in names], output)


def _rules_here(group: str | None, socket: str, output: str) -> None:
    from vnet.client.local import call_agent  # noqa: PLC0415 - loads an HTTP library

    with failures():
        found = call_agent("rules", {"group": group} if group is not None else {}, socket)
    if output != "table":
        dump(found, output)
    else:
        print_table(found, RULES)


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=50, show_default=True, help="How many of the newest.")
@click.option("--kind", metavar="KIND", help="Only of this kind.")
@click.option("--host", metavar="NAME", help="Only of this host.")
@click.option("--network", metavar="NAME", help="Only of this network.")
@click.option("--vif", metavar="ID", help="Only of this VIF.")
@output_option
def events(follow: bool, limit: int, output: str, **filters: str | None) -> int:
    """The events of the pool. With --follow, JSON has one object a line and YAML one document each."""
    chosen = {name: value for name, value in filters.items() if value is not None}
    with connected() as client:
        if not follow:
            emit(client.events(limit, **chosen), output, EVENTS)
            return ExitCode.OK
        try:
            for event in client.follow(limit=str(limit), **chosen):
                _print_event(event, output)
        except KeyboardInterrupt:
            return ExitCode.OK
    return ExitCode.OK


def _print_event(event: api.Event, output: str) -> None:
    import json  # noqa: PLC0415

    if output == "json":
        echo(json.dumps(plain(event)))
    elif output == "yaml":
        echo("---")
        dump(plain(event), output)
    else:
        echo(on_one_line("  ".join(filter(None, (event.time, event.kind, event.host, event.vif, event.text)))))
