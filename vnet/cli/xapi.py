"""`vnet xapi`: networks for a XenServer or XCP-ng pool, and its VMs followed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import Column, dump, echo, emit, output_option
from vnet.cli.remote import connected
from vnet.util.printable import on_one_line

if TYPE_CHECKING:
    from vnet.xapi.session import Credentials, XapiSession

F = TypeVar("F", bound=Callable[..., Any])

PUBLISHED: list[Column] = [
    ("NETWORK", lambda n: n.network),
    ("LABEL", lambda n: n.label),
    ("UUID", lambda n: n.uuid),
    ("BRIDGE", lambda n: n.bridge),
]
PROBLEMS: list[Column] = [("OBJECT", lambda pair: pair[0]), ("PROBLEM", lambda pair: pair[1])]
STATE = "/run/vnet-xapi/state.json"


def xapi_options(command: F) -> F:
    """The options by which a pool of xapi is reached."""
    for option in (
        click.option("--xapi-ca", metavar="FILE", type=click.Path(exists=True, dir_okay=False), envvar="VNET_XAPI_CA",
                     help="The certificates that its hosts are known by.  [default: those that this machine trusts]"),
        click.option("--password-file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
                     envvar="VNET_XAPI_PASSWORD_FILE", help="The file with the user's password in its first line."),
        click.option("--user", default="root", show_default=True, envvar="VNET_XAPI_USER", help="The user of xapi."),
        click.option("--host", "addresses", metavar="ADDRESS", multiple=True, required=True, envvar="VNET_XAPI_HOSTS",
                     help="A host of the pool, the master or not; repeat it for others to try."),
    ):  # fmt: skip
        command = option(command)
    return command


def _credentials(user: str, password_file: Path, ca: str | None) -> Credentials:
    from vnet.xapi.session import Credentials  # noqa: PLC0415

    if password_file.stat().st_mode & 0o077:
        raise CommandError(
            f"{password_file} may be read by others: 'chmod 600 {password_file}'", ExitCode.INVALID_INPUT
        )
    return Credentials(user, password_file.read_text().partition("\n")[0], ca)


@contextmanager
def _master(addresses: tuple[str, ...], credentials: Credentials) -> Iterator[XapiSession]:
    """A session with the pool's master, found by any of its hosts."""
    from vnet.xapi.session import XapiError, master_session  # noqa: PLC0415

    try:
        session = master_session(addresses, credentials)
    except XapiError as error:
        raise CommandError(str(error), ExitCode.UNREACHABLE) from None
    try:
        yield session
    except XapiError as error:
        raise CommandError(f"xapi: {error}") from None
    finally:
        session.close()


@click.group()
def xapi() -> None:
    """XenServer and XCP-ng: publish networks to a pool, and follow its VMs."""


@xapi.command()
@click.argument("network")
@click.option("--label", help="What people choose it by there.  [default: the network's name]")
@click.option(
    "--agile", is_flag=True, help="Let xapi's high availability count VMs on it as agile: each host gets a PIF record."
)
@xapi_options
def publish(
    network: str,
    label: str | None,
    agile: bool,
    addresses: tuple[str, ...],
    user: str,
    password_file: Path,
    xapi_ca: str | None,
) -> None:
    """Make NETWORK a network of the pool of xapi, which its VMs may be plugged into. What is there already stays."""
    from vnet.xapi import publishing  # noqa: PLC0415

    with connected() as client, _master(addresses, _credentials(user, password_file, xapi_ca)) as session:
        found = publishing.publish(client, session, network, label, agile=agile)
    echo(on_one_line(f"network {network} is '{found.label}' there: {found.uuid}, bridge {found.bridge} on each host"))


@xapi.command()
@click.argument("network")
@click.option("--yes", is_flag=True, help="Do not ask.")
@xapi_options
def unpublish(
    network: str, yes: bool, addresses: tuple[str, ...], user: str, password_file: Path, xapi_ca: str | None
) -> None:
    """Remove NETWORK from the pool of xapi, with the VIFs of halted VMs on it. It is refused while a VM that runs is plugged into it."""
    from vnet.xapi import publishing  # noqa: PLC0415

    with connected() as client, _master(addresses, _credentials(user, password_file, xapi_ca)) as session:
        found = publishing.published(session, client.pool().id)
        if not yes:
            click.confirm(f"remove network {network} from the pool of xapi, and VIFs of halted VMs on it?", abort=True)
        publishing.unpublish(client, session, network, found)
    echo(f"network {network} is no more there")


@xapi.command("take-over")
@click.argument("network")
@click.option(
    "--of",
    "wanted",
    metavar="LABEL|UUID",
    required=True,
    help="The network of xapi: the same VLAN of the same bridge, or tunnels whose bridge is the uplink.",
)
@click.option("--back", is_flag=True, help="Give the VIFs back to xapi's bridges.")
@xapi_options
def take_over(
    network: str,
    wanted: str,
    back: bool,
    addresses: tuple[str, ...],
    user: str,
    password_file: Path,
    xapi_ca: str | None,
) -> None:
    """Take the VIFs of a VLAN of xapi, or of its tunnels, over to NETWORK, host by host while their VMs run. 'vnet xapi follow' must be running."""
    from vnet.xapi import taking_over  # noqa: PLC0415

    with connected() as client, _master(addresses, _credentials(user, password_file, xapi_ca)) as session:
        ref = taking_over.network_of_xapi(session, wanted)
        taking_over.assert_same(client, session, network, ref)
        takeover = taking_over.Takeover(client, session, ref, network)
        for vif in takeover.give_back() if back else takeover.take():
            echo(f"VIF {vif} is on {on_one_line(wanted) if back else network}")


@xapi.command("list")
@output_option
@xapi_options
def published(output: str, addresses: tuple[str, ...], user: str, password_file: Path, xapi_ca: str | None) -> None:
    """The networks that are published to the pool of xapi."""
    from vnet.xapi import publishing  # noqa: PLC0415

    with connected() as client, _master(addresses, _credentials(user, password_file, xapi_ca)) as session:
        emit(publishing.published(session, client.pool().id), output, PUBLISHED)


@xapi.command("import")
@click.option("--pool", "name", metavar="NAME", default="xen", show_default=True, help="The pool's name in vnet.")
@click.option("--networks-only", is_flag=True, help="Leave out VMs and VIFs, as 'vnet xapi follow' brings those.")
@click.option(
    "--keep-tunnels",
    is_flag=True,
    help="Networks of Xen Orchestra's tunnels stay on them: their bridges are uplinks, so that VIFs can be taken over.",
)
@xapi_options
def import_(
    name: str,
    networks_only: bool,
    keep_tunnels: bool,
    addresses: tuple[str, ...],
    user: str,
    password_file: Path,
    xapi_ca: str | None,
) -> None:
    """Print the pool of xapi as a document: hosts, networks, VMs and VIFs. Comments say what it leaves out. No controller is asked."""
    from vnet.topology import TopologyErrors  # noqa: PLC0415
    from vnet.xapi.importing import CLASSES, import_document  # noqa: PLC0415

    with _master(addresses, _credentials(user, password_file, xapi_ca)) as session:
        records = {table.lower(): session.call(f"{table}.get_all_records") for table in CLASSES}
    try:
        echo(import_document(records, name, not networks_only, keep_tunnels=keep_tunnels), nl=False)
    except TopologyErrors as errors:
        raise CommandError(f"the pool of xapi is no pool of vnet as it stands:\n\n{errors}") from None


@xapi.command()
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=STATE,
    show_default=True,
    help="Where it says how far it is: 'vnet xapi status'.",
)
@xapi_options
def follow(state: Path, addresses: tuple[str, ...], user: str, password_file: Path, xapi_ca: str | None) -> None:
    """Follow the VMs of the pool of xapi: their VIFs on published networks become vnet's, and move as they move. Nothing is written there."""
    from vnet.xapi.service import follow_until_stopped  # noqa: PLC0415

    credentials = _credentials(user, password_file, xapi_ca)
    with connected() as client:
        try:
            follow_until_stopped(client, addresses, credentials, state)
        except OSError as error:
            raise CommandError(str(error)) from None


@xapi.command()
@click.option(
    "--state", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), default=STATE, show_default=True
)
@output_option
def status(state: Path, output: str) -> None:
    """How far the follower on this machine is, and its problems."""
    try:
        found = json.loads(state.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"no follower has written {state}: {error}", ExitCode.UNREACHABLE) from None
    if output != "table":
        dump(found, output)
        return
    echo(on_one_line(f"pool {found['pool'] or '-'}, master {found['master'] or '-'}"))
    echo(
        on_one_line(
            f"followed by {found['follower']}" + (f"; {found['standby']} stands by" if found["standby"] else "")
        )
    )
    echo(f"read {found['time']}; {found['behind']} VMs are not carried out yet")
    emit(sorted(found["problems"].items()), output, PROBLEMS)
