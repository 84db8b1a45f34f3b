"""Tokens on the command line. One rule: a token is printed or written by the command that makes it, and by no other."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import Column, echo, emit, output_option, say
from vnet.cli.remote import connected

ROLES = click.Choice(["viewer", "operator", "network-admin", "host", "proxy"])
TOKENS: list[Column] = [
    ("NAME", lambda t: t.name),
    ("ROLE", lambda t: f"{t.role} of {t.host}" if t.host else t.role),
    ("NETWORKS", lambda t: t.networks),
    ("VMS", lambda t: t.vms),
    ("SECURITY GROUPS", lambda t: t.security_groups),
    ("QOS CLASSES", lambda t: t.qos_classes),
    ("LABELS", lambda t: t.labels),
    ("MOST VIFS", lambda t: t.max_vifs),
    ("MOST VMS", lambda t: t.max_vms),
    ("ENDS", lambda t: t.ends),
    ("MADE BY", lambda t: t.maker),
]


@click.group()
def token() -> None:
    """Tokens of people and toolstacks (docs/trust.md)."""


@token.command()
@click.argument("name")
@click.option("--role", type=ROLES, required=True, help="What it may do.")
@click.option("--network", "networks", multiple=True, metavar="NAME", help="Of its scope; '*' in it for anything.")
@click.option("--vm", "vms", multiple=True, metavar="NAME", help="VMs of its scope.")
@click.option("--security-group", "groups", multiple=True, metavar="NAME", help="Security groups that it may use.")
@click.option("--qos-class", "qos", multiple=True, metavar="NAME", help="QoS classes that it may use.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Networks and VMs of its scope, by a label."
)
@click.option("--max-vifs", type=click.IntRange(0), help="The most VIFs in its scope.")
@click.option("--max-vms", type=click.IntRange(0), help="The most VMs in its scope.")
@click.option("--host", default="", help="The host of a token of the role host.")
@click.option(
    "--days", type=click.FloatRange(0), default=0.0, help="How long it is valid.  [default: until it is revoked]"
)
@click.option("--user", is_flag=True, help="A user whom a reverse proxy names, without a secret.")
@click.option("--replace", is_flag=True, help="End a token of that name that is there.")
@click.option(
    "--to", type=click.Path(dir_okay=False, path_type=Path), help="A file to write it to, for its owner alone."
)
def make(
    name: str,
    role: str,
    networks: tuple[str, ...],
    vms: tuple[str, ...],
    groups: tuple[str, ...],
    qos: tuple[str, ...],
    labels: tuple[str, ...],
    max_vifs: int | None,
    max_vms: int | None,
    host: str,
    days: float,
    user: bool,
    replace: bool,
    to: Path | None,
) -> None:
    """Make the token NAME and print it, or write it to a file. It is shown this once.

    With a scope it sees and changes VIFs on these networks that are of these VMs, and nothing else.
    """
    from vnet import api  # noqa: PLC0415 - help needs none of it

    call = api.TokenCall(
        role=role, host=host, networks=list(networks), vms=list(vms), security_groups=list(groups), qos_classes=list(qos), labels=list(labels),
        max_vifs=max_vifs, max_vms=max_vms, days=days, user=user, replace=replace,
    )  # fmt: skip
    if to is not None and to.exists() and not replace:
        raise CommandError(f"{to} is there already", ExitCode.CONFLICT)
    with connected() as client:
        made = client.make_token(name, call)
    if user:
        say(f"user {name} has the role {role} where a proxy names them")
    elif to is None:
        echo(made.secret)
    else:
        _write(to, made.secret)
        say(f"{to}: token {name}")


def _write(path: Path, secret: str) -> None:
    """Raises CommandError."""
    from vnet.util.files import replace_file  # noqa: PLC0415

    try:
        replace_file(path.absolute(), f"{secret}{os.linesep}".encode(), 0o600)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; the token was made: make it again with --replace") from None


@token.command("list")
@output_option
def list_tokens(output: str) -> None:
    """All tokens, without their secrets."""
    with connected() as client:
        emit(client.tokens(), output, TOKENS)


@token.command()
@click.argument("name")
def revoke(name: str) -> int:
    """End the token NAME at once."""
    with connected() as client:
        done = client.revoke_token(name).done
    say(f"token {name} is revoked" if done else f"there is no token {name}")
    return ExitCode.OK
