"""One host of a twin beside a real switch with the same flows: each frame through both, byte for byte."""

from __future__ import annotations

from dataclasses import replace

from ovsctl.openflow.messages import FragmentHandling
from tests.ovsctl.datapath.real_bridge import SENTINEL, RealBridge
from vnet.compile import flat, meters_of, zones_of
from vnet.objects import (
    Host,
    Network,
    NetworkType,
    Pool,
    PoolState,
    Protocol,
    SecurityGroup,
    Vif,
    Vm,
)
from vnet.sim import SimPool
from vnet.sim.packets import End, Talk

NAMES = ("srv", "cli", "third")
PORTS = range(1, len(NAMES) + 1)


class Both:
    """The VIFs srv, cli and third of one network on one host, on the twin and on a real switch."""

    def __init__(self, bridge: RealBridge, *groups: SecurityGroup, **members: tuple[str, ...]) -> None:
        self.bridge = bridge
        networks = {"lan": Network("lan", NetworkType.INTERNAL, 1, 1500)}
        vifs = {
            f"{name}/0": Vif(
                f"{name}/0", "lan", f"0a:00:00:00:00:0{n}", name, addresses=(f"10.0.0.{n}", f"fd00::{n}"), host="h0",
                groups=members.get(name, ()),
            )
            for n, name in enumerate(NAMES, 1)
        }  # fmt: skip
        vms = {name: Vm(name, "h0") for name in NAMES}
        hosts = {"h0": Host("h0", "10.99.0.1")}
        self.pool = SimPool.of(
            PoolState(Pool("p", 1600), hosts, networks, {}, vms, vifs, groups={group.name: group for group in groups})
        )
        self._zones: set[int] = set()
        self.now_us = 0
        bridge.appctl("dpctl/flush-conntrack")
        self._program()
        bridge.send(PORTS[0], SENTINEL)  # what other tests have sent has arrived

    def _program(self) -> None:
        compiled = self.pool.hosts["h0"].compiled
        flows = flat(compiled)
        for zone in zones_of(flows).keys() - self._zones:  # as the agent empties them
            self.bridge.appctl("dpctl/flush-conntrack", f"zone={zone}")
        self._zones = set(zones_of(flows))
        self.bridge.set(flows, meters=meters_of(compiled), keep_connections=True, fragments=FragmentHandling.NX_MATCH)

    def change(self, *groups: SecurityGroup, **members: tuple[str, ...]) -> None:
        """Other rules for groups, other groups for VIFs."""
        state = self.pool.state
        vifs = {vif.id: replace(vif, groups=members.get(vif.id[:-2], vif.groups)) for vif in state.vifs.values()}
        bindings = {key: replace(row, groups=vifs[key[0]].groups) for key, row in state.bindings.items()}
        named = {group.name: group for group in groups}
        self.pool.update(replace(state, vifs=vifs, bindings=bindings, groups=state.groups | named))
        self._program()

    def set_moved(self, name: str, moved: bool) -> None:
        """Says of a VIF's binding that it came by a migration of late, or no longer."""
        state = self.pool.state
        key = (f"{name}/0", "h0")
        self.pool.update(replace(state, bindings=state.bindings | {key: replace(state.bindings[key], moved=moved)}))
        self._program()

    def talk(self, source: str, target: str, protocol: Protocol, port: int = 0, version: int = 4) -> Talk:
        """A conversation between two of the VIFs."""
        a, b = self.pool.vif(f"{source}/0"), self.pool.vif(f"{target}/0")
        of = version == 6
        return Talk(End(a.mac, a.addresses[of]), End(b.mac, b.addresses[of]), protocol, port)

    def send(self, source: str, frame: bytes) -> list[tuple[str, bytes]]:
        """The VIFs that a frame reaches, and what each gets. The twin and the switch agree."""
        host = self.pool.hosts["h0"]
        port = host.ports[f"{source}/0"]
        ours = sorted((out.port, out.frame) for out in host.bridge.receive(frame, port, now_us=self.now_us))
        real = sorted(self.bridge.send(port, frame))
        assert ours == real, frame.hex()
        names = {number: vif[:-2] for vif, number in host.ports.items()}
        return [(names[number], got) for number, got in real]

    def passes(self, source: str, frame: bytes) -> bool:
        """Whether a frame of a VIF arrives, as it was, at somebody's."""
        got = self.send(source, frame)
        assert all(data == frame for _, data in got)
        return bool(got)
