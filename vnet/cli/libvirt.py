"""`vnet libvirt`: hosts of libvirt and QEMU."""

from __future__ import annotations

import json
import logging
import signal
import sys
from types import FrameType

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import echo
from vnet.cli.remote import connected, failures, socket_option
from vnet.util import logs
from vnet.util.printable import on_one_line

INPUT_MAX = 4 * 1024 * 1024  # bytes of a domain's XML


@click.group()
def libvirt() -> None:
    """Hosts of libvirt and QEMU: their hook, the events of their guests, and their guests as a document."""


@libvirt.command()
@click.argument("guest")
@click.argument("operation")
@click.argument("part")
@click.argument("extra", nargs=-1)
@socket_option
def hook(guest: str, operation: str, part: str, extra: tuple[str, ...], socket: str) -> None:
    """Carry out what libvirt's qemu hook says, with the domain's XML on standard input. packaging/libvirt/hooks/qemu calls it.

    It prints nothing on standard output, which libvirt would take for another XML. What fails refuses the guest.
    """
    from vnet.client.local import call_agent  # noqa: PLC0415
    from vnet.libvirt.domain import UnreadableDomain, read_domain  # noqa: PLC0415
    from vnet.libvirt.hook import GuestRefused, QemuHook  # noqa: PLC0415

    try:
        domain = read_domain(sys.stdin.read(INPUT_MAX))
    except (UnreadableDomain, UnicodeDecodeError) as error:
        raise CommandError(f"guest {guest}: its XML cannot be read: {error}", ExitCode.INVALID_INPUT) from None
    if not domain.interfaces:
        return

    def warn(text: str) -> None:
        echo(f"vnet: {on_one_line(text)}", err=True)

    try:
        with connected() as client:
            with failures():
                me = str(call_agent("status", {}, socket)["host"])
            try:
                QemuHook(client, me, warn).carry_out(operation, domain)
            except GuestRefused as error:
                raise CommandError(f"guest {guest}: {error}", ExitCode.CONFLICT) from None
    except CommandError as error:
        # A guest that starts where the agent knows its VIFs needs no controller. One that moves does.
        if error.exit is not ExitCode.UNREACHABLE or operation == "migrate":
            raise
        warn(f"guest {guest}, {operation}: {error.message}")


@libvirt.command("import")
@click.option("--connect", "connections", metavar="[HOST=]URI", multiple=True, required=True,
              help="A libvirt to read, as virsh names it, and its host in vnet.  [default host: as it calls itself]")  # fmt: skip
@click.option("--pool", metavar="NAME", help="The name of a pool that has no document yet.")
def import_(connections: tuple[str, ...], pool: str | None) -> None:
    """Write the pool, with the guests that run on hosts of libvirt, as a document. It changes nothing, in vnet or there."""
    from vnet.api.errors import Refused  # noqa: PLC0415
    from vnet.libvirt.events import Virsh  # noqa: PLC0415
    from vnet.libvirt.importing import imported_document  # noqa: PLC0415
    from vnet.topology import API_VERSION, TopologyErrors  # noqa: PLC0415
    from vnet.util.commands import ToolFailed  # noqa: PLC0415

    running = {}
    for connection in connections:
        host, _, uri = connection.partition("=")
        if "://" in host:  # an `=` of the URI's own
            host, uri = "", connection
        virsh = Virsh(uri)
        try:
            running[host or virsh.hostname()] = list(virsh.domains())
        except ToolFailed as error:
            raise CommandError(str(error), ExitCode.UNREACHABLE) from None
    with connected() as client:
        try:
            exported = client.export()
        except Refused as error:
            if pool is None:
                raise CommandError(f"{error}: name it with --pool", ExitCode.INVALID_INPUT) from None
            exported = json.dumps({"apiVersion": API_VERSION, "pool": pool})
        theirs = {vif.id for vif in client.vifs() if vif.owner == "toolstack"}
        theirs |= {vm.name for vm in client.vms() if vm.owner == "toolstack"}
        theirs |= {host.name for host in client.hosts() if host.owner == "toolstack"}
    try:
        text, left_out = imported_document(exported, running, theirs)
    except TopologyErrors as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None
    echo(text, nl=False)
    for reason in left_out:
        echo(f"left out: {on_one_line(reason)}", err=True)


@libvirt.command()
@click.option("--connect", "uri", metavar="URI", default="", envvar="VNET_LIBVIRT_URI",
              help="The libvirt of this host, as virsh names it.  [default: virsh's]")  # fmt: skip
@socket_option
def watch(uri: str, socket: str) -> None:
    """Open the ports of guests that migrate in the moment in which libvirt pauses them, so that nothing sent meanwhile is lost."""
    from vnet.libvirt.events import MigrationEvents, Virsh  # noqa: PLC0415
    from vnet.util.sd_notify import sd_notify  # noqa: PLC0415

    logs.configure()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with connected() as client:
        events = MigrationEvents(client, socket, Virsh(uri), lambda: sd_notify("READY=1"))

        def stop(_: int, __: FrameType | None) -> None:
            events.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        events.run()
