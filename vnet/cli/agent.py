"""`vnet agent`: runs the daemon of one host."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path

import click

from ovsctl.ovsdb import BadRemote
from vnet.cli.exits import CommandError, ExitCode
from vnet.util.transport import TransportError

OVS_DB = "unix:/run/openvswitch/db.sock"


@click.command()
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="This host's name in the pool; this machine's name by default. With --openflow, repeat it for each host, with as many --ovs-db.",
)
@click.option(
    "--pool",
    multiple=True,
    metavar="REMOTE",
    default=("unix:/run/vnet/pool.sock",),
    help="Pool database; repeat for a cluster.",
)
@click.option(
    "--ovs-db",
    "ovs_dbs",
    multiple=True,
    metavar="REMOTE",
    default=(OVS_DB,),
    show_default=True,
    help="Open vSwitch's database of the host.",
)
@click.option(
    "--openflow",
    default="",
    metavar="LISTEN",
    help="Run for hosts that have no agent on them: pssl:PORT[:ADDRESS], where their bridges connect to (docs/remote.md).",
)
@click.option(
    "--switch-pki-dir",
    type=click.Path(path_type=Path),
    default="/var/lib/vnet/switch-pki",
    show_default=True,
    help="The agent's certificate towards switches, for --ovs-db at ssl: and --openflow at pssl:.",
)
@click.option("--ovs-rundir", metavar="DIR", default="/run/openvswitch", show_default=True)
@click.option("--bridge", default="br-int", show_default=True)
@click.option("--datapath-type", default="", help="As in ovs-vswitchd.conf.db(5); empty for the kernel's.")
@click.option("--socket", "socket_path", metavar="PATH", default="/run/vnet/agent.sock", show_default=True)
@click.option(
    "--pki-dir",
    type=click.Path(path_type=Path),
    default="/var/lib/vnet/pki",
    show_default=True,
    help="This host's certificate, for pool databases at ssl:; with --openflow, each host's in a directory of its name there.",
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
@click.option(
    "--wireguard-dir",
    metavar="DIR",
    default="/run/vnet/wireguard",
    show_default=True,
    help="Where this host's WireGuard service has its files, for encrypted networks; '' for none.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS",
    help="Where Prometheus reads metrics, besides the socket: tcp:127.0.0.1:9478, or https://HOST:PORT with the certificate server.pem of --pki-dir.",
)
@click.option(
    "--metrics-token-file",
    type=click.Path(path_type=Path),
    help="The bearer token of who reads metrics; needed at https.",
)
@click.option(
    "--hello-interval",
    metavar="SECONDS",
    type=click.FloatRange(0.05, 30),
    default=1.0,
    show_default=True,
    help="How often each peer is sent a hello through tunnels, by which 'vnet doctor --pool' and alerts know that they work. Of many peers, less often.",
)
@click.option(
    "--account-interval",
    metavar="SECONDS",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="How often this host writes what its VIFs have sent and got into the pool database.",
)
@click.option("--cleartext", is_flag=True, help="Allow a pool database at tcp: on another machine.")
def agent(
    hosts: tuple[str, ...],
    pool: tuple[str, ...],
    ovs_dbs: tuple[str, ...],
    openflow: str,
    switch_pki_dir: Path,
    ovs_rundir: str,
    bridge: str,
    datapath_type: str,
    socket_path: str,
    pki_dir: Path,
    renew_from: str | None,
    state_dir: str,
    wireguard_dir: str,
    metrics: str | None,
    metrics_token_file: Path | None,
    hello_interval: float,
    account_interval: float,
    cleartext: bool,
) -> None:
    """Run the agent of this host, or with --openflow those of other hosts."""
    names = hosts or (socket.gethostname(),)
    if not openflow:
        names, ovs_dbs = names[-1:], ovs_dbs[-1:]  # the unit's own options stand before those of its file
    if len(names) != len(ovs_dbs) or len(set(names)) != len(names):
        text = f"each host needs a --host and an --ovs-db of its own: there are {len(set(names))} and {len(ovs_dbs)}"
        raise CommandError(text, ExitCode.INVALID_INPUT)
    daemon = import_module("vnet.agent.daemon")
    options = daemon.DaemonOptions(
        hosts=tuple(zip(names, ovs_dbs, strict=True)),
        pool=pool,
        ovs_rundir=ovs_rundir,
        bridge=bridge,
        datapath_type=datapath_type,
        socket=socket_path,
        pki_dir=pki_dir,
        switch_pki_dir=switch_pki_dir,
        state_dir=Path(state_dir) if state_dir else None,
        cleartext=cleartext,
        openflow=openflow,
        renew_from=renew_from,
        wireguard=Path(wireguard_dir) if wireguard_dir else None,
        metrics=metrics,
        metrics_token_file=metrics_token_file,
        hello_s=hello_interval,
        account_s=account_interval,
    )
    try:
        daemon.main(options)
    except TransportError as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None
    except BadRemote as error:
        raise CommandError(f"--pool, --ovs-db or --openflow: {error}", ExitCode.INVALID_INPUT) from None
    except OSError as error:
        raise CommandError(f"{socket_path}: {error}") from None
