"""`vnet trace`: why a packet arrives, or does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.moment import at_option
from vnet.cli.output import dump, echo, output_option
from vnet.cli.remote import connected
from vnet.cli.twin import document_of, planned_twin, protocol_of, refusals, running_twin, twin_of, twin_of_past

if TYPE_CHECKING:
    from random import Random

    from vnet.objects import Protocol, Vif
    from vnet.probe.live_trace import Asking
    from vnet.sim import SimPool
    from vnet.sim.conversation import Party
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
@click.option("--file", "file", metavar="DOC", help="In the pool of this document, not in the running one.")
@click.option("--plan", "plan", metavar="DOC", help="In the pool as it would be once this document was applied.")
@at_option
@click.option(
    "--live",
    is_flag=True,
    help="Ask every switch on the way and send real packets, which no guest gets; print where they disagree.",
)
@click.option(
    "--wait", "wait_s", type=float, default=5.0, show_default=True, help="Seconds a host has to answer --live."
)
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
    plan: str | None,
    at: str | None,
    live: bool,
    wait_s: float,
    full: bool,
    output: str,
) -> int:
    """Follow a packet from FROM (a VIF, as web1/0, or a VM) to TO (the same, or 'outside') and back: every host and table
    it passes, the object behind each flow, and how it ends. Exits with 3 if it does not arrive, or with --live if the hosts'
    switches or the packets do not agree."""
    if sum(given is not None for given in (tcp, udp, packet, pcap)) + icmp > 1:
        raise click.UsageError("one of --tcp, --udp, --icmp, --packet and --pcap")
    if sum(given is not None for given in (file, plan, at)) + live > 1:
        raise click.UsageError("one of --file, --plan, --at and --live")
    if target is None and packet is None and pcap is None:
        raise click.UsageError("name TO, or give a packet with --packet or --pcap")
    question = Question(source, target, *protocol_of(tcp, udp), packet, pcap)
    if live:
        return _live(question, wait_s, full, output)
    with refusals():
        if file is not None:
            pool = twin_of(document_of(file))
        elif at is not None:
            pool = twin_of_past(at, source, target)
        else:
            pool = planned_twin(document_of(plan)) if plan is not None else running_twin()
        traced = question.put(pool)
    if output == "table":
        echo(traced.render(full))
    else:
        dump(traced.as_dict(), output)
    return ExitCode.OK if traced.reached else ExitCode.EXPECTATION_FAILED


def _live(question: Question, wait_s: float, full: bool, output: str) -> int:
    from random import SystemRandom  # noqa: PLC0415 - help need not pay for it

    from vnet.cli.live_pool import twin_of_running  # noqa: PLC0415
    from vnet.probe.controller_client import asker, sender  # noqa: PLC0415
    from vnet.probe.live_trace import LiveTrace, answered  # noqa: PLC0415
    from vnet.probe.packet_injection import send_all  # noqa: PLC0415

    with connected() as client, refusals():
        pool, random = twin_of_running(client), SystemRandom()
        (found,) = answered(pool, asker(client, wait_s), [question.put_live(pool, random)])
        if not isinstance(found, LiveTrace):
            raise found
        (traced,) = send_all(pool, sender(client, wait_s), [found], random)
    if output == "table":
        echo(traced.render(full))
    else:
        dump(traced.as_dict(), output)
    return ExitCode.OK if traced.reached and traced.agrees else ExitCode.EXPECTATION_FAILED


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the pool: a conversation, or with `text` or `pcap` one packet."""

    source: str
    target: str | None
    protocol: Protocol
    port: int
    text: str | None
    pcap: str | None

    def put(self, pool: SimPool) -> Trace:
        """To the twin."""
        from vnet.sim.conversation import trace as trace_talk  # noqa: PLC0415
        from vnet.sim.trace import Trace, trace_packet  # noqa: PLC0415

        source, target = self._ends(pool)
        frame = self._frame(source, target)
        if frame is None:
            return trace_talk(pool, source, target or source, self.protocol, self.port)
        leg = trace_packet(pool, source.endpoint, frame, f"packet of {len(frame)} bytes from {source.name}")
        reached = target.delivery in leg.to if target is not None else bool(leg.to)
        return Trace(f"{source.name} to {target.name if target is not None else 'anyone'}", (leg,), reached)

    def put_live(self, pool: SimPool, random: Random) -> Asking:
        """To the twin and to the switches."""
        from vnet.probe.live_trace import conversation, one_frame  # noqa: PLC0415
        from vnet.sim.packets import CLIENT_PORTS  # noqa: PLC0415

        source, target = self._ends(pool)
        frame = self._frame(source, target)
        if frame is None:
            port = random.randrange(*CLIENT_PORTS)
            return conversation(pool, source, target or source, self.protocol, self.port, port)
        return one_frame(pool, source.delivery, target.delivery if target is not None else None, frame)

    def _ends(self, pool: SimPool) -> tuple[Party, Party | None]:
        """FROM and TO in a pool; without TO a VM as FROM must have one VIF."""
        from vnet.sim.conversation import ends_named  # noqa: PLC0415

        source, target = ends_named(pool, self.source, self.target or self.source)
        if self.target is None:
            return _party(pool, source, None), None
        return _party(pool, source, target), _party(pool, target, source)

    def _frame(self, source: Party, target: Party | None) -> bytes | None:
        if self.text is not None:
            return _frame(source, target, self.text)
        return _captured(self.pcap) if self.pcap is not None else None


def _party(pool: SimPool, vif: Vif | None, other: Vif | None) -> Party:
    from vnet.sim.conversation import outside, party  # noqa: PLC0415

    if vif is not None:
        return party(pool, vif)
    found = outside(pool, other) if other is not None else None
    if found is None:
        name = pool.label(other) if other is not None else "outside"
        raise CommandError(f"the network of {name} does not meet the physical one: nothing outside can reach it")
    return found


def _frame(source: Party, target: Party | None, text: str) -> bytes:
    """The bytes of a written packet. An Ether() that leaves its addresses out has those of the two VIFs."""
    from vnet.sim.packet_text import frame_of, parse_packet  # noqa: PLC0415

    packet = parse_packet(text)
    if packet.name == "Ethernet":
        # Asking scapy for a default source or destination would make it look at this machine's own interfaces.
        if "src" not in packet.fields:
            packet.src = source.mac
        if "dst" not in packet.fields:
            packet.dst = target.mac if target is not None else "ff:ff:ff:ff:ff:ff"
    return frame_of(packet)


def _captured(packet: str) -> bytes:
    file, colon, number = packet.rpartition(":")
    if not colon or not number.isdecimal() or not int(number):
        raise click.UsageError(f"--pcap {packet}: write FILE:N, N from 1")
    from scapy.error import Scapy_Exception  # noqa: PLC0415
    from scapy.utils import RawPcapReader  # noqa: PLC0415

    try:
        with RawPcapReader(file) as reader:
            for at, (data, _) in enumerate(reader, 1):
                if at == int(number):
                    return bytes(data)
    except (OSError, EOFError, Scapy_Exception) as error:
        raise CommandError(f"{file}: {error}", ExitCode.INVALID_INPUT) from None
    raise CommandError(f"{file} has no packet {number}", ExitCode.INVALID_INPUT)
