"""Answers packets that rules reject: a TCP reset, or ICMP's "unreachable" (vnet/compile/rejection.py).

One rule: what floods this host with rejected packets costs it REJECTIONS_OF_HOST answers a second, whatever the VIFs; the rest is dropped in silence.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.shell import Shell
from vnet.compile import HostView, Rejected, reply_to
from vnet.objects.limits import REJECTIONS_OF_HOST

NS = 10**9
MAX_TRACED = 256
COMPARED = 128  # bytes of a frame that tell it from others
VLAN = b"\x81\0"


class TokenBucket:
    """Lets `rate` pass in a second, and as many at once. clock: nanoseconds, never backwards."""

    def __init__(self, rate: int, clock: Callable[[], int]) -> None:
        self._each_ns: Final = NS // rate
        self._whole_ns: Final = rate * self._each_ns
        self._clock: Final = clock
        self._full_at = 0  # when it will be full again

    def admits(self) -> bool:
        """Whether one more may pass now; if so it has."""
        now = self._clock()
        full_at = max(self._full_at, now) + self._each_ns
        if full_at - now > self._whole_ns:
            return False
        self._full_at = full_at
        return True


class Rejections:
    """Answers rejected packets. counts: those that were answered, and those over the host's rate. clock: nanoseconds."""

    def __init__(
        self, view: HostView, flows: BridgeFlows, shell: Shell, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._view: Final = view
        self._flows: Final = flows
        self._shell: Final = shell
        self._bucket: Final = TokenBucket(REJECTIONS_OF_HOST, clock)
        self._traced: Final[deque[bytes]] = deque(maxlen=MAX_TRACED)
        self.counts: Final[Counter[str]] = Counter()

    def traced(self, frame: bytes) -> None:
        """Leaves a frame unanswered that is about to be traced: ofproto/trace sends nothing but what is for the agent."""
        tag = 4 * (frame[12:14] == VLAN)
        self._traced.append((frame[:12] + frame[12 + tag :])[:COMPARED])

    def packet_in(self, message: PacketIn) -> None:
        """Takes a rejected packet."""
        if message.data[:COMPARED] in self._traced:
            self._traced.remove(message.data[:COMPARED])
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
