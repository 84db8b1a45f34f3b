"""A host's metrics with a real agent and a real switch: what the switch has counted, in the text that Prometheus reads, and how often it was asked."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from ovsctl.openflow.messages import PortStats
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, pool_of, vif
from tests.vnet.agent.test_local_api import socket_of
from vnet.agent.http_door import MAX_CALLERS, HttpDoor, MetricsPort
from vnet.agent.measures import Measures
from vnet.agent.metrics import MAX_VIFS, HostMetrics, SwitchCounters
from vnet.objects import Binding, Host, SecurityGroup, Verdict
from vnet.util.transport import TransportError


def series(text: str) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        name: float(number)
        for name, _, number in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    }


def udp(source: int, to: int, port: int = 9, sender: int | None = None) -> str:
    """A packet from one VIF to another; sender: whose address it has."""
    return (
        f"eth(src=0a:00:00:00:00:{source:02x},dst=0a:00:00:00:00:{to:02x}),eth_type(0x0800),"
        f"ipv4(src=10.1.0.{sender or source},dst=10.1.0.{to},proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst={port})"
    )


def send(host: HostUnderTest, device: str, frame: str, count: int) -> None:
    for _ in range(count):
        host.switch.appctl("netdev-dummy/receive", device, f"in_port(0),{frame}")


async def get(path: Path, target: str) -> tuple[int, str]:
    """What the agent's socket answers to HTTP."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.usefixtures("ovs")
async def test_a_scrape_says_what_the_switch_has_counted_and_how_a_move_went() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(Host("xen9", "10.99.0.9"))
        await pool.insert(SecurityGroup("shut", 7, ingress=Verdict.DROP, egress=Verdict.ALLOW))
        moving = vif(3, host="xen9", incoming="xen1", epoch=1)
        await pool.insert(vif(1), vif(2, groups=("shut",)), moving)
        await pool.insert(Binding("vm3/0", "xen9", "tenant", moving.mac, 1, addresses=moving.addresses, ready=True))
        for number in (1, 2, 3):
            host.add_port(f"p{number}", f"vm{number}/0")
        for number in (1, 2, 3):
            await pool.wait_ready(f"vm{number}/0", "xen1")
        async with socket_of(host) as ask:
            path = host.switch.server.dir / "agent.sock"
            send(host, "p1", udp(1, 2, sender=99), 3)  # not its address
            send(host, "p1", udp(1, 2), 4)  # the group lets nothing in
            send(host, "p1", udp(1, 77), 5)  # nobody has that MAC
            send(host, "p3", udp(3, 1), 2)  # it does not run here yet
            assert await get(path, "/healthz") == (200, "ok\n")
            assert await get(path, "/readyz") == (200, "ready\n")
            assert (await get(path, "/metric"))[0] == 404
            await ask("switch", vif="vm3/0")
            send(host, "p1", udp(1, 3), 6)
            await ask("activate", vif="vm3/0")
            await until(lambda: "vm3/0" in host.agent.measures.moves, "the move is measured")
            status, text = await get(path, "/metrics")
            assert status == 200
            found = series(text)
            assert {reason: found[f'vnet_dropped_packets_total{{reason="{reason}"}}'] for reason in ("guard", "rule", "unknown", "meter")} == {
                "guard": 3, "rule": 4, "unknown": 5, "meter": 0
            }  # fmt: skip
            assert found['vnet_dropped_packets_total{reason="held"}'] >= 2  # and what others said to all
            assert found['vnet_vif_packets_total{vif="vm1/0",network="tenant",vm="",direction="from-vm"}'] == 18
            assert found['vnet_vif_packets_total{vif="vm3/0",network="tenant",vm="",direction="to-vm"}'] == 6
            assert found['vnet_rule_packets_total{group="shut",rule="",direction="ingress"}'] == 4
            assert found['vnet_migration_waited_packets{vif="vm3/0"}'] == 6
            assert found['vnet_migration_pause_seconds{vif="vm3/0"}'] > 0
            assert found["vnet_plug_seconds_count"] == 3
            assert found["vnet_apply_seconds_count"] >= 1
            assert found['vnet_events_total{kind="active"}'] >= 2
            assert found['vnet_device_up{port="vnet-vxlan"}'] == 1
            assert well_formed(text)


def well_formed(text: str) -> bool:
    """Whether each line is a comment or a sample, and no series stands twice (Prometheus's exposition format 0.0.4)."""
    sample = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? -?[0-9.e+-]+(Inf)?')
    lines = [line for line in text.splitlines() if not line.startswith(("# HELP ", "# TYPE "))]
    names = [line.rpartition(" ")[0] for line in lines]
    return all(sample.fullmatch(line) for line in lines) and len(names) == len(set(names))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.usefixtures("ovs")
async def test_scrapes_at_once_read_the_switch_once_and_none_waits_for_a_switch_that_is_away() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host, clock = pool.hosts["xen1"], Clock()
        await pool.insert(vif(1))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        metrics = HostMetrics(host.agent, clock=clock)
        texts = await asyncio.gather(*(metrics.text() for _ in range(20)))
        assert len({*texts}) == 1
        assert metrics.reads == {"made": 1}
        clock.now_s = 5.0
        await metrics.text()
        assert metrics.reads == {"made": 2}
        host.switch.stop()
        await until(lambda: not host.agent.flows.connected, "the agent notices")
        clock.now_s = 10.0
        found = series(await metrics.text())
        assert found["vnet_switch_up"] == 0
        assert "vnet_vifs" not in found
        ready = await HttpDoor(host.agent, None)._reply(b"GET /readyz HTTP/1.1\r\n", b"")
        assert ready[0] == 503
        assert "ovs-vswitchd" in ready[2]


def counters(number: int, **more: int) -> PortStats:
    return PortStats(number, 1.0, **dict.fromkeys(PortStats.__struct_fields__[2:10], 0) | more)


async def test_series_of_vifs_are_bounded() -> None:
    vifs = {f"v{number}/0": vif(number % 250) for number in range(MAX_VIFS + 7)}
    view = SimpleNamespace(vifs=vifs, ports=dict(zip(vifs, range(MAX_VIFS + 7), strict=True)), devices={})
    accounts = SimpleNamespace(totals=lambda: dict.fromkeys(vifs, (1, 60) * 4))
    metrics = HostMetrics(SimpleNamespace(compiler=SimpleNamespace(view=view), accounting=accounts))  # type: ignore[arg-type]
    ports = {number: counters(number) for number in view.ports.values()}
    lines = [line for family in metrics._traffic(SwitchCounters(ports=ports)) for line in family.lines()]
    assert "vnet_vifs_left_out 7" in lines
    assert sum(line.startswith("vnet_vif_bytes_total{") for line in lines) == 2 * MAX_VIFS
    accounted = [line for line in lines if line.startswith("vnet_vif_accounted_bytes_total{")]
    assert len(accounted) == 4 * MAX_VIFS
    assert {line.rpartition(" ")[2] for line in accounted} == {"60"}
    assert {line.partition(',direction="')[2].partition("}")[0] for line in accounted} == {
        f'{way}",with="{side}"' for way in ("from-vm", "to-vm") for side in ("pool", "outside")
    }


async def test_latencies_are_from_the_port_and_the_turn_to_the_switchs_word() -> None:
    clock = Clock()
    measures = Measures(clock)
    measures.ports((), ("a/0", "b/0"))
    clock.now_s = 1.0
    measures.turned(1, lambda id: id == "a/0", changed=True)
    measures.turned(2, lambda id: False, changed=False)
    clock.now_s = 3.0
    measures.held(1)
    assert (measures.plugs.sum, measures.changes.sum) == (3.0, 2.0)
    measures.ports(("a/0", "b/0"), ("a/0",))  # b went before it had flows
    measures.turned(3, lambda id: True, changed=False)
    measures.held(3)
    assert sum(measures.plugs.counts) == 1
    read: asyncio.Future[PortStats | None] = asyncio.get_running_loop().create_future()
    measures.opened("a/0", read)
    read.set_result(counters(1, tx_packets=5, tx_dropped=1))
    clock.now_s = 3.5
    measures.arrived("a/0", counters(1, tx_packets=9, tx_dropped=3))
    move = measures.moves["a/0"]
    assert (move.pause_s, move.waited, move.lost) == (0.5, 4, 2)
    measures.arrived("c/0", None)  # nobody said that it was paused
    assert "c/0" not in measures.moves


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9478", "expected tcp:HOST:PORT"),
        ("tcp:10.0.0.1:9478", "cleartext off loopback"),
        ("https://10.0.0.1:9478", "takes --metrics-token-file"),
    ],
)
def test_metrics_are_shown_to_others_by_tls_and_with_a_token_alone(address: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=expected):
        MetricsPort(address, tmp_path, None)


async def test_who_says_nothing_takes_one_of_a_few_places() -> None:
    """Strangers that connect and are silent cost an agent no more than these, and nobody waits for them."""
    door = HttpDoor(SimpleNamespace(), None)  # type: ignore[arg-type]
    server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CALLERS)]
        await until(lambda: len(door._callers) == MAX_CALLERS, "silent callers")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        for _, mine in (*silent, (reader, writer)):
            mine.close()
        await until(lambda: not door._callers, "places that are free again")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


def test_what_is_well_formed() -> None:
    assert not well_formed('a{b="c"} 1\na{b="c"} 2\n')
    assert well_formed('a{b="c\\"d"} 1\n')
