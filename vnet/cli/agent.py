"""`vnet agent`: runs the daemon of one host."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path

import click

from ovsctl.ovsdb import BadRemote
from vnet.cli.exits import CommandError, Exit
from vnet.util.transport import TransportError


@click.command()
@click.option(
    "--host", default=socket.gethostname, show_default="this machine's name", help="This host's name in the pool."
)
@click.option(
    "--pool",
    multiple=True,
    metavar="REMOTE",
    default=("unix:/run/vnet/pool.sock",),
    help="Pool database; repeat for a cluster.",
)
@click.option("--ovs-db", metavar="REMOTE", default="unix:/run/openvswitch/db.sock", show_default=True)
@click.option("--ovs-rundir", metavar="DIR", default="/run/openvswitch", show_default=True)
@click.option("--bridge", default="br-int", show_default=True)
@click.option("--datapath-type", default="", help="As in ovs-vswitchd.conf.db(5); empty for the kernel's.")
@click.option("--socket", "socket_path", metavar="PATH", default="/run/vnet/agent.sock", show_default=True)
@click.option(
    "--pki-dir",
    type=click.Path(path_type=Path),
    default="/var/lib/vnet/pki",
    show_default=True,
    help="This host's certificate, for pool databases at ssl:.",
)
@click.option(
    "--renew-from", metavar="URL", help="The controller beside the CA, at https, which renews this host's certificate."
)
@click.option(
    "--state-dir",
    metavar="DIR",
    default="/var/lib/vnet/agent",
    show_default=True,
    help="This host's copy of the pool, by which it comes back without a database; '' for none.",
)
@click.option("--cleartext", is_flag=True, help="Allow a pool database at tcp: on another machine.")
def agent(
    host: str,
    pool: tuple[str, ...],
    ovs_db: str,
    ovs_rundir: str,
    bridge: str,
    datapath_type: str,
    socket_path: str,
    pki_dir: Path,
    renew_from: str | None,
    state_dir: str,
    cleartext: bool,
) -> None:
    """Run the agent of this host."""
    daemon = import_module("vnet.agent.daemon")
    try:
        daemon.main(
            host=host,
            pool=pool,
            ovs_db=ovs_db,
            ovs_rundir=ovs_rundir,
            bridge=bridge,
            datapath_type=datapath_type,
            socket=socket_path,
            pki_dir=pki_dir,
            state_dir=Path(state_dir) if state_dir else None,
            cleartext=cleartext,
            renew_from=renew_from,
        )
    except TransportError as error:
        raise CommandError(str(error), Exit.INVALID_INPUT) from None
    except BadRemote as error:
        raise CommandError(f"--pool or --ovs-db: {error}", Exit.INVALID_INPUT) from None
    except OSError as error:
        raise CommandError(f"{socket_path}: {error}") from None
