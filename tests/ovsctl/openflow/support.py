"""What the OpenFlow tests share: ovs-ofctl as the oracle of single messages, and a bridge with two ports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ovsctl.openflow.session import Sendable
from ovsctl.openflow.wire import frame
from tests.servers import Vswitchd, run, vswitchd


def ofp_print(message: bytes) -> str:
    """What `ovs-ofctl ofp-print` makes of a message."""
    return run("ovs-ofctl", "ofp-print", message.hex(), "2").strip()


def printed(message: Sendable, xid: int = 5) -> str:
    return ofp_print(frame(message.TYPE, xid, message.encode()))


@dataclass(frozen=True)
class Bridge:
    switch: Vswitchd
    name: str = "br0"

    @property
    def remote(self) -> str:
        return f"unix:{self.switch.server.dir}/{self.name}.mgmt"

    def ofctl(self, command: str, *args: str) -> str:
        return self.switch.ofctl(command, self.remote, *args)

    def dump(self, *args: str) -> list[str]:
        """`ovs-ofctl dump-flows` without statistics, sorted."""
        lines = self.switch.ofctl("--no-stats", "dump-flows", self.remote, *args).splitlines()
        return sorted(line.strip() for line in lines if "reply" not in line)

    def vsctl(self, *args: str) -> str:
        return self.switch.server.vsctl(*args)

    def receive(self, port: str, frame_hex: str) -> None:
        """Let a frame arrive at a dummy port, once the datapath follows the flows as they are now."""
        self.switch.appctl("revalidator/wait")
        self.switch.appctl("netdev-dummy/receive", port, frame_hex)


@contextlib.contextmanager
def bridge(protocols: str = "OpenFlow15") -> Iterator[Bridge]:
    """A bridge `br0` of the dummy datapath with ports p1 (1) and p2 (2), which drops what no flow matches."""
    with vswitchd() as switch:
        made = Bridge(switch)
        made.vsctl(
            "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
            f"protocols={protocols}",
        )  # fmt: skip
        for number in (1, 2):
            add_port(made, number)
        yield made


def add_port(made: Bridge, number: int) -> None:
    made.vsctl(
        "add-port", "br0", f"p{number}", "--", "set", "interface", f"p{number}", "type=dummy",
        f"ofport_request={number}",
    )  # fmt: skip
