"""Answers packets that rules reject: a TCP reset, or ICMP's "unreachable" (vnet/compile/rejection.py).

One rule: what floods this host with rejected packets costs it REJECTIONS_OF_HOST answers a second, whatever the VIFs; the rest is dropped in silence.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.shell import Shell
from vnet.agent.token_bucket import TokenBucket
from vnet.agent.traced_frames import TracedFrames
from vnet.compile import HostView, Rejected, reply_to
from vnet.objects.limits import REJECTIONS_OF_HOST


class Rejections:
    """Answers rejected packets. counts: those that were answered, and those over the host's rate. clock: nanoseconds."""

    def __init__(
        self, view: HostView, flows: BridgeFlows, shell: Shell, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._shell: Final = shell
        self._bucket: Final = TokenBucket(REJECTIONS_OF_HOST, clock)
        self.traced: Final = TracedFrames()
        self.counts: Final[Counter[str]] = Counter()

    def packet_in(self, message: PacketIn) -> None:
        """Takes a rejected packet."""
        if self.traced.takes(message.data):
            return
        if not self._bucket.admits():
            self.counts["over the rate"] += 1
            return
        reply = reply_to(self._view, rejected_of(message))
        if reply is not None:
            self.counts["answered"] += 1
            self._shell.spawn(self._flows.send_reply(reply))


def rejected_of(message: PacketIn) -> Rejected:
    """The rejected packet of a packet-in."""
    found = {
        name: field.value for name in ("metadata", "tun_src", "tun_ipv6_src") if (field := message.match.get(name))
    }
    four, six = found.get("tun_src", 0), found.get("tun_ipv6_src", 0)
    source = str(ip_address(six.to_bytes(16, "big"))) if six else str(ip_address(four)) if four else None
    return Rejected(message.userdata, message.data, message.in_port or 0, found.get("metadata", 0), source)
