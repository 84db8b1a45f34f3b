"""Probes through the controller: ofproto/trace on hosts, and marked packets."""

from __future__ import annotations

from collections.abc import Sequence

from vnet import api
from vnet.client import Client, Invalid, NotFound
from vnet.probe.live_trace import PacketSighting
from vnet.probe.packet_injection import Send, Shot, ShotResult
from vnet.probe.trace_comparison import Ask, TraceReply, TraceRequest


def asker(client: Client, wait_s: float) -> Ask:
    """A function that runs ofproto/trace on hosts. It raises NotFound where the controller does not know a host."""

    def ask(requests: Sequence[TraceRequest]) -> list[TraceReply]:
        replies = client.probe(api.ProbesCall(probes=[_probe_call(request) for request in requests], wait_s=wait_s))
        return [
            TraceReply(reply.text, _numbered(reply.vifs), _numbered(reply.devices), reply.problem) for reply in replies
        ]

    return ask


def _probe_call(request: TraceRequest) -> api.ProbeCall:
    tunnel = None
    if request.source:
        tunnel = api.TunnelCall(key=request.key, source=request.source, target=request.target)
    return api.ProbeCall(
        host=request.host,
        frame=request.frame.hex(),
        vif=request.vif or None,
        device=request.device or None,
        tunnel=tunnel,
        tracked=list(request.tracked),
    )


def sender(client: Client, wait_s: float) -> Send:
    """A function that sends marked packets."""

    def send(shots: Sequence[Shot]) -> tuple[list[ShotResult], list[str]]:
        calls = [
            api.PacketCall(
                frame=shot.frame.hex(),
                vif=shot.vif,
                to=shot.to,
                round=shot.round,
                after=shot.after,
                expect=list(shot.expect),
            )
            for shot in shots
        ]
        try:
            sent = client.packets(api.PacketsCall(packets=calls, wait_s=wait_s))
        except (Invalid, NotFound) as error:  # the pool has changed since it was read
            return [_refused(str(error)) for _ in shots], []
        if sent.left_off:  # a sighting that is left out cannot be told from a loss
            return [_refused(f"hosts left out {sent.left_off} sightings of it") for _ in shots], []
        return [_result(packet) for packet in sent.packets], sent.problems

    return send


def _refused(reason: str) -> ShotResult:
    return ShotResult(False, reason, (), (), False)


def _result(packet: api.Packet) -> ShotResult:
    came, caught = (
        tuple(PacketSighting(sighting.host, sighting.where) for sighting in sightings)
        for sightings in (packet.came, packet.caught)
    )
    changed = any(sighting.changed for sighting in (*packet.came, *packet.caught))
    return ShotResult(packet.sent, packet.why, came, caught, changed)


def _numbered(ports: dict[str, str]) -> dict[int, str]:
    return {int(number): name for number, name in ports.items() if number.isdecimal()}
