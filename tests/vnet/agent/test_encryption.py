"""Encrypted networks on a host: what a service's report, the keys of others and the pool's epoch come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ovsctl.ovsdb import OvsdbClient
from tests.polling import until
from tests.vnet.agent.pool import TENANT, pool_of, vif
from vnet.agent import copy_keeper, encryption
from vnet.agent.copy_keeper import MARK
from vnet.agent.encryption import SETTLED_S, EncryptedTunnels
from vnet.agent.local_copy import NAME
from vnet.agent.pool_replica import PoolReplica
from vnet.compile import Compiler
from vnet.objects import Binding, Encryption, Host, Pool, TunnelKey
from vnet.objects.encryption import inner_address
from vnet.wireguard.exchange import REPORT, WANTED, Mailbox, PublicKey, WireguardOrder, WireguardReport, write
from vnet.wireguard.service import MOST_S, OUT_OF_STEP_S, QUIET_S, Traffic, Unanswered

ENCRYPTED = replace(TENANT, encryption=Encryption.REQUIRED)


def public(number: int) -> str:
    return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" + "ABCDEFGH"[number] + "A="


@pytest.mark.usefixtures("ovs")
async def test_a_host_without_wireguard_has_no_vif_of_an_encrypted_network() -> None:
    async with pool_of("xen1", networks=(ENCRYPTED,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1, host="xen1"))
        host.add_port("p1", "vm1/0")
        problem = "network tenant is encrypted, which this host cannot: its WireGuard service does not run: systemctl start vnet-wireguard"
        await until(lambda: host.agent.problems.get("vif vm1/0") == problem, "the reason")
        assert not [binding.ready for binding in (await pool.bindings()).values() if binding.ready]
        assert not [flow for flow in host.flows() if "0a:00:00:00:00:01" in flow]
        await pool.update("Network", ("name", "tenant"), encryption=None)
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: "vif vm1/0" not in host.agent.problems, "no reason")


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("database", [True, False], ids=["database", "copy"])
async def test_an_agent_that_starts_again_leaves_the_flows_of_an_encrypted_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: bool
) -> None:
    """Whether it has the pool from the database or from its own copy, and however late it would look at the service's report by itself."""
    monkeypatch.setattr(copy_keeper, "ALONE_AFTER_S", 0.3)
    monkeypatch.setattr(copy_keeper, "WRITTEN_AFTER_S", 0.1)
    async with pool_of("xen1", networks=(ENCRYPTED,)) as pool:
        host = pool.hosts["xen1"]
        await host.stop()
        host.state_dir, host.wireguard = tmp_path / "state", tmp_path
        own = {plane: PublicKey(public(plane), 0) for plane in (0, 1)}
        write(tmp_path / REPORT, WireguardReport(own, "02:00:00:00:00:01", linked=True, ready=True))
        await pool.update("Pool", ("name", "test"), id="0b6c1c6e-8a1f-4c41-9d5e-0d2d6d1f3c11")
        await pool.insert(
            Host("xen2", "10.99.0.2"), *(TunnelKey("xen2", plane, public(plane + 2), 0) for plane in (0, 1))
        )
        await pool.insert(
            vif(1, host="xen1"), vif(2, host="xen2"), Binding("vm2/0", "xen2", "tenant", "0a:00:00:00:00:02", 1)
        )
        host.start()
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: any("0a:00:00:00:00:02" in flow for flow in host.flows()), "a flow to the other host")
        await until(lambda: (tmp_path / "state" / NAME).exists() and not (tmp_path / "state" / MARK).exists(), "a copy")
        await host.stop()
        before = host.flows()
        if not database:
            pool.server.stop()
        monkeypatch.setattr(encryption, "LOOK_S", 5.0)
        host.start()
        await until(
            lambda: host.agent.complete and host.agent.flows.connected and host.agent.revisions.flows > 0, "flows"
        )
        assert (host.flows(), host.agent.flows.messages) == (before, 0)


class Host1:
    """Host xen1's part, without any database: what it reads is set, what it would do is read."""

    def __init__(self, directory: Path) -> None:
        self.now_ms = 1_000_000_000
        self.directory = directory
        self.replica = PoolReplica(Compiler("xen1"), lambda _: None)
        self.inputs = self.replica.compiler.inputs
        client = OvsdbClient(["unix:/nowhere"], "Vnet")
        self.tunnels = EncryptedTunnels(self.replica, client, directory, lambda: None, lambda: self.now_ms)
        self._orders = Mailbox(directory / WANTED)
        for number in (1, 2):
            self.inputs.set_host(Host(f"xen{number}", f"10.99.0.{number}"))
        self.epoch(0)
        self.inputs.set_network(ENCRYPTED)

    def epoch(self, epoch: int) -> None:
        self.inputs.set_pool(Pool("p", id="x", key_epoch=epoch))

    def peer(self, plane: int, key: int, epoch: int) -> None:
        self.replica.tunnel_keys["xen2", plane] = TunnelKey("xen2", plane, public(key), epoch)

    def report(self, keys: Mapping[int, tuple[int, int]], agreed: Mapping[int, int]) -> None:
        """keys: by plane, the own key's number and epoch. agreed: by number of a peer's key, seconds ago."""
        own = {plane: PublicKey(public(key), epoch) for plane, (key, epoch) in keys.items()}
        handshakes = {public(key): self.now_ms // 1000 - ago for key, ago in agreed.items()}
        write(
            self.directory / REPORT,
            WireguardReport(own, "02:00:00:00:00:01", linked=True, ready=True, handshakes=handshakes),
        )
        self.tunnels._read_report()

    def plane(self) -> int | None:
        """The plane that frames to xen2 take."""
        self.tunnels._follow()
        address = self.inputs.inner.get("xen2")
        return next((plane for plane in (0, 1) if address == inner_address("x", "xen2", plane)), None)

    def order(self) -> WireguardOrder:
        found = self._orders.read(WireguardOrder)
        assert found is not None
        return found


def test_frames_take_the_plane_on_which_both_have_agreed(tmp_path: Path) -> None:
    host = Host1(tmp_path)
    host.report({0: (0, 0), 1: (1, 0)}, {})
    assert (host.plane(), host.order().peers) == (None, {})
    host.peer(0, 2, 0)
    host.peer(1, 3, 0)
    assert host.plane() == 0, "they have keys; WireGuard keeps what is sent till they have agreed"
    host.report({0: (0, 0), 1: (1, 0)}, {2: 100, 3: 100})
    host.epoch(1)
    assert host.plane() == 0, "the keys of plane 1 are old and about to go, here and there"
    host.report({0: (0, 0), 1: (4, 1)}, {2: 100})
    assert host.plane() == 0, "the other's are"
    host.peer(1, 5, 1)
    assert host.plane() == 0, "new keys that nobody has agreed on"
    host.report({0: (0, 0), 1: (4, 1)}, {2: 100, 5: SETTLED_S - 1})
    assert host.plane() == 0, "a session that may give way to another"
    host.report({0: (0, 0), 1: (4, 1)}, {2: 100, 5: SETTLED_S})
    assert (host.plane(), host.order().sending) == (1, {"xen2": 1})
    host.peer(1, 6, 1)
    assert host.plane() == 0, "another key: the plane on which they have agreed"
    del host.replica.tunnel_keys["xen2", 0], host.replica.tunnel_keys["xen2", 1]
    assert host.plane() is None


@pytest.mark.parametrize(
    ("size", "growth", "quiet"),
    [(0, 0, True), (500, 60, True), (500, 500, False), (500, -1, False)],
    ids=["nothing", "keepalives", "frames", "started anew"],
)
def test_a_plane_is_quiet_once_no_frames_have_come_for_long_enough(size: int, growth: int, quiet: bool) -> None:
    traffic = Traffic()
    assert not traffic.quiet
    for second in range(5):
        assert traffic.quiet is (quiet and second > QUIET_S)
        traffic.add(second, {"a": size + growth * second, "b": 7})
    assert traffic.quiet is quiet


def test_a_peer_that_never_answers_is_called_out_of_step() -> None:
    """Half a turn later than the other end, which calls it every 5 s (WireGuard paper §6.1)."""
    unanswered = Unanswered()
    assert OUT_OF_STEP_S % 5 == 2.5
    assert not unanswered.due(0, {"a"})
    assert not unanswered.due(OUT_OF_STEP_S - 0.1, {"a"})
    assert unanswered.due(OUT_OF_STEP_S, {"a"}) == {"a"}
    assert not unanswered.due(2 * OUT_OF_STEP_S, {"a"}), "not so often"
    assert unanswered.due(3 * OUT_OF_STEP_S, {"a"}) == {"a"}
    assert unanswered.due(10_000, {"a"}) == {"a"}
    assert unanswered.due(10_000 + MOST_S, {"a"}) == {"a"}
    assert unanswered.due(20_000, ()) == unanswered.due(20_000, {"a"}) == set(), "it has answered, and begins anew"
