"""Answers how the local switch would treat a frame, by ofproto/trace (ovs-vswitchd(8)): nothing is sent, nothing is learned.

One rule: a question that cannot be answered is answered with the reason, so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from ovsctl.appctl import AppctlError
from vnet.agent.switch_access import SwitchAccess
from vnet.agent.traced_frames import TracedFrames
from vnet.compile import HostView
from vnet.compile.flows import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP
from vnet.db.probes import MAX_TEXT_BYTES, Answer, Probe
from vnet.objects.carriers import INSTEAD_OF
from vnet.objects.limits import SCTP

TRACE_TIMEOUT_S = 5.0
MAX_TRACE_BYTES = 4 * 1024 * 1024
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}


class Prober:
    """Answers the questions to this host. traced: note each frame before the switch is asked about it."""

    def __init__(self, view: HostView, access: SwitchAccess, bridge: str, traced: Sequence[TracedFrames]) -> None:
        self._view: Final = view
        self._traced: Final = traced
        self._access: Final = access
        self._bridge: Final = bridge

    async def answer(self, probe: Probe) -> Answer:
        """The answer to a controller's question."""
        view = self._view
        ofport = view.plugged(probe.vif) if probe.vif else self._came_in_by(probe)
        if ofport is None:
            port = f"port for VIF {probe.vif}" if probe.vif else f"port {probe.device} on {self._bridge}"
            return Answer(problem=f"host {view.me} has no {port}")
        try:
            switch = self._access.control(TRACE_TIMEOUT_S, MAX_TRACE_BYTES)
            tracked = (word for state in probe.tracked.split() for word in ("--ct-next", state.replace("+", ",")))
            frame = bytes.fromhex(probe.frame)
            match = metadata(probe, ofport)
            if "rpl" in probe.tracked:
                match += answered(frame)
            for noted in self._traced:
                noted.note(frame)
            text = await switch.ofproto_trace(self._bridge, match, *tracked, packet=frame)
        except AppctlError as error:
            return Answer(problem=f"Open vSwitch of host {view.me}: {error.reason}")
        if len(text) > MAX_TEXT_BYTES:
            return Answer(problem=f"the trace on host {view.me} is longer than {MAX_TEXT_BYTES} bytes")
        vifs = {str(ofport): vif for vif, ofport in view.ports.items()}
        devices = {str(ofport): INSTEAD_OF.get(name, name) for name, ofport in view.devices.items()}
        return Answer(text, vifs, devices)

    def _came_in_by(self, probe: Probe) -> int | None:
        """A tunnel's port by its name in the pool, where a kernel may have one for each family of addresses."""
        devices = self._view.devices
        of_ipv6 = [name for name, plain in INSTEAD_OF.items() if plain == probe.device and ":" in probe.tun_src]
        return next((devices[name] for name in (*of_ipv6, probe.device) if name in devices), None)


def metadata(probe: Probe, ofport: int) -> str:
    """A frame's metadata as a match for ofproto/trace."""
    if not probe.tun_src:
        return f"in_port={ofport}"
    names = ("tun_src", "tun_dst") if ip_address(probe.tun_src).version == 4 else ("tun_ipv6_src", "tun_ipv6_dst")
    return f"in_port={ofport},tun_id={probe.tun_id},{names[0]}={probe.tun_src},{names[1]}={probe.tun_dst}"


def answered(frame: bytes) -> str:
    """The first packet of a connection as its tracker keeps it, by a packet that answers: fields of a match for ofproto/trace.

    ofproto/trace asks no tracker and keeps the fields that it is given. Empty for a packet with extension headers, and one that is cut
    off.
    """
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    eth_type, at = int.from_bytes(frame[at : at + 2], "big"), at + 2
    if eth_type == ETH_IPV4 and len(frame) >= at + 20:
        version, field, size, addresses = "ip", "ct_nw", 4, at + 12
        proto, ports = frame[at + 9], at + (frame[at] & 15) * 4
    elif eth_type == ETH_IPV6 and len(frame) >= at + 40:
        version, field, size, addresses = "ipv6", "ct_ipv6", 16, at + 8
        proto, ports = frame[at + 6], at + 40
    else:
        return ""
    src, dst = (ip_address(frame[start : start + size]) for start in (addresses, addresses + size))
    first = f",ct_state=trk|est,{version},{field}_src={dst},{field}_dst={src},ct_nw_proto={proto}"
    if proto in (TCP, UDP, SCTP):
        source_port, port = (int.from_bytes(frame[start : start + 2], "big") for start in (ports, ports + 2))
        return f"{first},ct_tp_src={port},ct_tp_dst={source_port}"
    if proto in ECHO_REQUEST:
        return f"{first},ct_tp_src={ECHO_REQUEST[proto]},ct_tp_dst=0"  # type and code
    return first
