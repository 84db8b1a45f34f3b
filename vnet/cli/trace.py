"""`vnet trace`: why a packet arrives, or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vnet.cli.exits import CommandError, Exit
from vnet.cli.output import dump, output_option
from vnet.cli.twin import document_of, protocol_of, refusals, running_twin, twin_of

if TYPE_CHECKING:
    from vnet.model import Protocol
    from vnet.sim import SimPool
    from vnet.sim.talk import Party
    from vnet.sim.trace import Trace

PORT = click.IntRange(1, 65535)


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO", required=False)
@click.option("--tcp", type=PORT, metavar="PORT", help="Ask for a TCP port, with the whole handshake.")
@click.option("--udp", type=PORT, metavar="PORT", help="Ask for a UDP port.")
@click.option("--icmp", is_flag=True, help="Ping; so does neither of the two.")
@click.option(
    "--packet", metavar="TEXT", help="Send this packet, written as for scapy: \"Ether()/IP(dst='10.0.0.1')\"."
)
@click.option("--pcap", metavar="FILE:N", help="Send packet N (from 1) of a capture.")
@click.option("--file", "file", metavar="DOC", help="In the pool that this document says, not in the one that runs.")
@click.option("--full", is_flag=True, help="Every step also of ARP and of other packets that only help.")
@output_option
def trace(
    source: str,
    target: str | None,
    tcp: int | None,
    udp: int | None,
    icmp: bool,
    packet: str | None,
    pcap: str | None,
    file: str | None,
    full: bool,
    output: str,
) -> int:
    """Follow a packet from FROM (a VIF, as web1/0, or a VM) to TO (the same, or 'outside') and back: every host and table
    it passes, the object behind each flow, and how it ends. Exits with 3 if it does not arrive."""
    if sum(given is not None for given in (tcp, udp, packet, pcap)) + icmp > 1:
        raise click.UsageError("one of --tcp, --udp, --icmp, --packet and --pcap")
    with refusals():
        pool = twin_of(document_of(file)) if file is not None else running_twin()
        if packet is not None or pcap is not None:
            traced = _one_packet(pool, source, target, packet, pcap)
        elif target is None:
            raise click.UsageError("say TO, or which packet with --packet or --pcap")
        else:
            traced = _conversation(pool, source, target, *protocol_of(tcp, udp))
    if output == "table":
        click.echo(traced.render(full))
    else:
        dump(traced.as_dict(), output)
    return Exit.OK if traced.reached else Exit.EXPECTATION_FAILED


def _conversation(pool: SimPool, source: str, target: str, protocol: Protocol, port: int) -> Trace:
    from vnet.sim.talk import trace as trace_talk  # noqa: PLC0415

    ends = _party(pool, source, target), _party(pool, target, source)
    return trace_talk(pool, *ends, protocol, port)


def _party(pool: SimPool, word: str, other: str) -> Party:
    from vnet.sim.talk import outside, party  # noqa: PLC0415

    if word != "outside":
        return party(pool, pool.vif(word))
    found = outside(pool, pool.vif(other))
    if found is None:
        raise CommandError(f"the network of {other} does not meet the physical one: nothing outside can reach it")
    return found


def _one_packet(pool: SimPool, source: str, target: str | None, text: str | None, pcap: str | None) -> Trace:
    from vnet.sim.trace import Trace, trace_packet  # noqa: PLC0415

    frame = _frame(pool, source, target, text) if text is not None else _captured(pcap or "")
    leg = trace_packet(pool, source, frame, f"packet of {len(frame)} bytes from {source}")
    wanted = pool.label(pool.vif(target)) if target is not None else None
    reached = wanted in leg.to if wanted is not None else bool(leg.to)
    return Trace(f"{source} to {target or 'anyone'}", (leg,), reached)


def _frame(pool: SimPool, source: str, target: str | None, text: str) -> bytes:
    """The bytes of a written packet. An Ether() that leaves its addresses out has those of the two VIFs."""
    from vnet.sim.packet_text import frame_of, parse_packet  # noqa: PLC0415

    packet = parse_packet(text)
    if packet.name == "Ethernet":
        # Asking scapy for a default source or destination would make it look at this machine's own interfaces.
        if "src" not in packet.fields:
            packet.src = pool.vif(source).mac
        if "dst" not in packet.fields:
            packet.dst = pool.vif(target).mac if target is not None else "ff:ff:ff:ff:ff:ff"
    return frame_of(packet)


def _captured(where: str) -> bytes:
    file, colon, number = where.rpartition(":")
    if not colon or not number.isdecimal() or not int(number):
        raise click.UsageError(f"--pcap {where}: write FILE:N, N from 1")
    from scapy.error import Scapy_Exception  # noqa: PLC0415
    from scapy.utils import RawPcapReader  # noqa: PLC0415

    try:
        with RawPcapReader(file) as reader:
            for at, (data, _) in enumerate(reader, 1):
                if at == int(number):
                    return bytes(data)
    except (OSError, EOFError, Scapy_Exception) as error:
        raise CommandError(f"{file}: {error}", Exit.INVALID_INPUT) from None
    raise CommandError(f"{file} has no packet {number}", Exit.INVALID_INPUT)
