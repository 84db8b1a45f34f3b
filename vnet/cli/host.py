"""Hosts on the command line."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.nouns import noun_group
from vnet.cli.output import Column, echo, emit, output_option, progress, say
from vnet.cli.pki import pki_dir_option
from vnet.cli.remote import connected, failures, socket_option, stopped
from vnet.util.invitation_line import decode_invitation

MOVED: list[Column] = [("MOVED", lambda item: item[0]), ("TO", lambda item: item[1])]


host = noun_group("host")


@host.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@socket_option
def leave(yes: bool, socket: str) -> None:
    """Have this host belong to no pool: its agent then follows the pool database it is pointed at, whatever that says.

    Run it on the host, when the database was restored from an older state, or is another pool's on purpose.
    """
    from vnet.client.local import call_agent  # noqa: PLC0415 - loads an HTTP library

    if not yes:
        click.confirm(
            "Its flows and rows become what that database says, and are taken away if it is empty. Go on?",
            abort=True,
            err=True,
        )
    with failures():
        left = call_agent("leave", {}, socket)["pool"]
    say(f"left pool {left}" if left else "this host belonged to no pool")


@host.command()
@click.argument("name")
@click.option("--url", help="Where the host reaches this controller.  [default: its --listen https://...]")
@click.option("--pool", multiple=True, metavar="REMOTE", help="The pool database for its agent; repeat for a cluster.")
@click.option("--minutes", type=float, default=60.0, show_default=True, help="How long the invitation is valid.")
def invite(name: str, url: str | None, pool: tuple[str, ...], minutes: float) -> None:
    """Print a line that has the host NAME join the pool. It holds a secret, and is worth a certificate once."""
    with connected() as client:
        made = client.invite(name, url=url, pool=pool, minutes=minutes)
    say(f"on {name}, until {made.ends[:16]} UTC:")
    echo(f"echo {made.word} | vnet host join")


@host.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(name: str, yes: bool) -> None:
    """Renew the certificate of the host NAME no more. It lets the host in until it ends (docs/trust.md)."""
    if not yes:
        click.confirm(f"Host {name} can come back by another invitation only. Go on?", abort=True, err=True)
    with connected() as client:
        ends = client.revoke(name).ends
    say(f"host {name} has its last certificate, which ends {ends[:16]} UTC")


@host.command()
@pki_dir_option
@click.option(
    "--conf",
    type=click.Path(path_type=Path),
    default="/etc/vnet/agent.conf",
    show_default=True,
    help="The agent's options.",
)
def join(pki_dir: Path, conf: Path) -> None:
    """Have this host join a pool, by the invitation on standard input: a certificate, the agent's options, its start."""
    from vnet.cli import joining  # noqa: PLC0415 - loads libraries for HTTP and certificates

    try:
        invitation = decode_invitation(sys.stdin.readline())
    except ValueError as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None
    with failures():
        joining.take_certificate(invitation, pki_dir)
    say(f"host {invitation.name} has its certificate in {pki_dir}")
    joining.write_options(invitation, pki_dir, conf)
    say(f"wrote {conf}")
    say(joining.start_agent())


@host.command("adopt-nic")
@click.argument("nic")
@click.option("--bridge", help="The bridge to make.  [default: br-NIC]")
@click.option(
    "--check", "checks", multiple=True, metavar="ADDRESS|HOST:PORT",
    help="What must answer afterwards, by ping or TCP, besides the NIC's gateways; repeatable.",
)  # fmt: skip
@click.option("--undo", is_flag=True, help="Give the NIC back what its bridge carries, and take it out of the bridge.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and run none.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt_nic(nic: str, bridge: str | None, checks: tuple[str, ...], undo: bool, dry_run: bool, yes: bool) -> None:
    """Put a NIC that carries this host's address into a bridge of Open vSwitch, and the address on the bridge, which an uplink may name.

    It is taken back unless the gateways and each --check answer within 10 seconds, also if this terminal is cut off. A reboot takes the
    host's own network configuration: change that too (docs/install.md).
    """
    from vnet.cli import nic_adoption  # noqa: PLC0415 - only here
    from vnet.util.commands import ToolFailed  # noqa: PLC0415

    try:
        move = nic_adoption.give_back(nic, checks) if undo else nic_adoption.adopt(nic, bridge or f"br-{nic}", checks)
    except ToolFailed as error:
        raise CommandError(str(error)) from None
    if dry_run:
        for command in (*move.forward, *move.last):
            for line in nic_adoption.shown(command):
                echo(line)
        return
    if not yes:
        click.confirm(
            f"The host's address moves; {', '.join(move.checks)} must answer, or it moves back. Go on?",
            abort=True,
            err=True,
        )
    log = Path(tempfile.mkdtemp(prefix="vnet-adopt-")) / "log"
    process = nic_adoption.in_background(move, log)
    with stopped(f"it goes on by itself: {log}"):
        kept = process.wait() == 0
    say(log.read_text().strip())
    shutil.rmtree(log.parent)
    if not kept:
        raise CommandError(f"{nic} is as it was")
    say(
        f"{nic} carries the host's address"
        if undo
        else f"in the document: uplinks: {{NAME: {{bridge: {bridge or f'br-{nic}'}}}}}"
    )


@host.command()
@click.argument("name")
@click.option(
    "--to", metavar="HOST", help="The destination of all; left out, they are spread over the hosts that can take them."
)
@click.option(
    "--activate", is_flag=True, help="Switch over when prepared, not waiting for the guests to announce themselves."
)
@click.option("--timeout", "timeout_s", type=float, default=600.0, show_default=True, metavar="SECONDS")
@output_option
def evacuate(name: str, to: str | None, activate: bool, timeout_s: float, output: str) -> None:
    """Migrate every VIF that runs on a host. Call again to go on after a failure."""
    left = "what is on its way stays so, and 'vnet status' lists it"
    with connected() as client, stopped(f"{left}. 'vnet host evacuate {name}' again goes on"):
        done = client.evacuate(name, to=to, activate=activate, timeout_s=timeout_s, progress=progress)
    if output != "table":
        emit(done, output)
    elif done.moved:
        emit(sorted(done.moved.items()), output, MOVED)
    say(f"host {name} runs nothing")
