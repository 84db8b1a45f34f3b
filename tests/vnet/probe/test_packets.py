"""Real packets of `--live`: they go where guests' packets go, no guest gets one, and where one is lost is said."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.l2 import ARP, Ether

from tests.labs import SharedLab, new_name
from tests.polling import until, wait_until
from tests.vnet.packets.moves import A, B, C, moves
from tests.vnet.packets.pools import every_type, vm_of
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import Client
from vnet.compile import Category, cookie, marked_fields
from vnet.lab import Driver, Lab
from vnet.lab.packet_bridge_client import WiresClient
from vnet.objects import InvalidValue

Run = Callable[..., tuple[int, str]]
WATCHES_FOR_S = 2.0  # after a probe's end
PORTS = 3
COLLECT_S = 600.0  # longer than any capture: the end of its block ends it
PROBES = f"cookie={cookie(Category.PROBE, '') & ~((1 << 40) - 1):#x}/{0xFFFFFF << 40:#x}"


@pytest.fixture(scope="module", params=list(Driver), ids=lambda driver: driver.value)
def lab(netns: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    state = every_type(per_host=2)
    vm = vm_of("vx", "xen1", 0)
    dual = {f"{vm_of('vx', host, 0)}/0": f"fd00::{n}" for n, host in enumerate(("xen1", "xen2", "xen3"), 1)}
    vifs = {id: replace(vif, addresses=(dual[id],)) if id in dual else vif for id, vif in state.vifs.items()}
    assert f"{vm}/0" in vifs
    with Lab.up(replace(state, vifs=vifs), name=new_name(), driver=request.param, daemons=True) as running:
        running.start_all()
        running.daemons.settle()
        yield running


@pytest.fixture
def vnet(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])

    def run(*args: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        code = main.run([str(arg) for arg in args])
        return code, capsys.readouterr().out

    return run


@contextmanager
def captured(lab: Lab, source: str) -> Iterator[list[bytes]]:
    """All that any guest or station gets inside; with a frame that `source` sends to all of its network."""
    got: list[bytes] = []
    vif, settle_s = lab.vif(source), lab.settled_after_s()
    canary = bytes(
        Ether(src=vif.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=vif.mac, psrc=vif.addresses[0], pdst="10.0.0.9")
    )
    with ThreadPoolExecutor() as pool, closing(WiresClient(lab.spec.dir)) as wires:
        found = pool.submit(lab.send, source, canary, settle_s=COLLECT_S, limit_s=COLLECT_S)
        wait_until(lambda: wires.call("status")["collecting"], "the capture begins")
        try:
            yield got
            assert wires.call("status")["collecting"]
        finally:
            wires.call("settle", settle_s=settle_s)
        got += [item.frame for item in found.result()]
    assert canary in got  # what reaches guests is seen


def is_marked(frame: bytes) -> bool:
    try:
        marked_fields(frame)
    except InvalidValue:
        return False
    return True


def watch_flows(lab: Lab) -> int:
    return sum(lab.ovs(host.name).ofctl("dump-flows", "br-int", PROBES).count("cookie=") for host in lab.spec.hosts)


def drifts(lab: Lab) -> int:
    with Client(lab.daemons.env["VNET_CONTROLLER"]) as client:
        return len(client.events(limit=1000, kind="drift"))


def legs(out: str) -> list[dict[str, object]]:
    return list(json.loads(out)["legs"])


def test_packets_go_all_the_way_and_no_guest_gets_one(lab: Lab, vnet: Run) -> None:
    """Every type of network, over hosts and within one, broadcasts too; TCP, UDP, ping, IPv6. Nothing stays behind."""
    lab.station("trunk0")
    before = drifts(lab)
    asked = [
        (vm_of("vx", "xen1", 1), vm_of("vx", "xen2", 1), "--tcp", "443"), (vm_of("vx", "xen1", 0), vm_of("vx", "xen3", 0), "--udp", "53"),
        (vm_of("gre", "xen1", 0), vm_of("gre", "xen2", 0), "--icmp"), (vm_of("gnv", "xen3", 0), vm_of("gnv", "xen1", 1), "--tcp", "22"),
        (vm_of("vlan", "xen1", 0), vm_of("vlan", "xen2", 0), "--tcp", "80"), (vm_of("native", "xen2", 0), "some", "--icmp"),
        (vm_of("lab", "xen1", 0), vm_of("lab", "xen1", 1), "--udp", "1"), (vm_of("vy", "xen1", 0), "free", "--icmp"),
    ]  # fmt: skip
    with captured(lab, f"{vm_of('vx', 'xen1', 1)}/0") as got:
        for source, target, *how in asked:
            code, out = vnet("trace", source, target, *how, "--live", "-o", "json")
            assert code == ExitCode.OK, out
            for leg in legs(out):
                why, packet = leg["packet"]["why"], leg["packet"]  # type: ignore[index]
                on_vlan = "VLAN" in why and leg["title"].startswith("ARP from")  # type: ignore[attr-defined]
                assert packet["sent"] or on_vlan, leg
                if packet["sent"]:
                    assert sorted({one["where"] for one in packet["caught"]}) == leg["real"]
    assert not [frame.hex() for frame in got if is_marked(frame)]
    wait_until(lambda: watch_flows(lab) == 0, "no flow stays", limit_s=WATCHES_FOR_S + 3)
    assert drifts(lab) == before


def test_streams_between_guests_lose_nothing_meanwhile(lab: Lab, vnet: Run) -> None:
    one, two, three = (f"{vm_of('vx', host, 1)}/0" for host in ("xen1", "xen2", "xen3"))
    pairs = (one, two), (two, one), (three, one)
    # The dummy driver's wires carry some hundred frames a second on a busy machine.
    with ExitStack() as running:
        streams = [running.enter_context(lab.stream(*pair, period_ms=10.0)) for pair in pairs]
        for _ in range(3):
            code, out = vnet("trace", one, two, "--tcp", "443", "--live")
            assert code == ExitCode.OK, out
            assert vnet("trace", two, one, "--udp", "9", "--live")[0] == ExitCode.OK  # as the streams' own
    for stream, (_, who) in zip(streams, pairs, strict=True):
        got = stream.report.at(who)
        assert (got.lost, got.duplicated, set(stream.report.received)) == (0, 0, {who})
        assert got.frames > 50


def test_a_host_that_does_not_watch(lab: Lab, vnet: Run) -> None:
    """xen3 is not on the way, but a broadcast would reach its guests: nothing is sent at all."""
    source, target = vm_of("vx", "xen1", 1), vm_of("vx", "xen2", 1)
    ends = lab.vif(f"{source}/0"), lab.vif(f"{target}/0")
    packet = f"Ether()/IP(src='{ends[0].addresses[0]}', dst='{ends[1].addresses[0]}')/UDP()"
    for how, says in (
        (["--packet", packet], "did not say within 0.4 s that it watches"),
        ([], "did not answer within 0.4 s"),
    ):
        lab.daemons.signal("xen3", signal.SIGSTOP)
        try:
            code, out = vnet("trace", source, target, *how, "--live", "--wait", "0.4", "-o", "json")
        finally:
            lab.daemons.signal("xen3", signal.SIGCONT)
        found = json.loads(out)
        assert code == ExitCode.EXPECTATION_FAILED
        assert found["problems"] == [f"the agent of host xen3 {says}"]
        assert not any(leg["packet"]["sent"] for leg in found["legs"])
        assert found["differences"] == []
    code, out = vnet("trace", vm_of("two", "xen1", 0), vm_of("two", "xen2", 0), "--live")
    assert code == ExitCode.OK, out


def test_a_packet_that_somebody_elses_flow_drops(lab: Lab, vnet: Run) -> None:
    source, target = vm_of("vx", "xen1", 1), vm_of("vx", "xen2", 1)
    with foreign_flow(lab, "xen2", "table=50,priority=60000,ip,actions=drop"):
        code, out = vnet("trace", source, target, "--tcp", "443", "--live")
    assert code == ExitCode.EXPECTATION_FAILED
    assert "the packet was lost: xen2 got it and gave it to nobody" in out
    assert "xen2 LOOKUP: the twin matches" in out


def test_a_packet_that_somebody_else_might_give_to_a_guest_is_not_sent(lab: Lab, vnet: Run) -> None:
    source, target = vm_of("vx", "xen1", 1), vm_of("vx", "xen2", 1)
    port = lab.ovs("xen1").vsctl("get", "interface", lab.spec.device(lab.vif(f"{vm_of('vx', 'xen1', 0)}/0")), "ofport")
    with (
        captured(lab, f"{source}/0") as got,
        foreign_flow(lab, "xen1", f"table=50,priority=60000,ip,actions=output:{port.strip()}"),
    ):
        code, out = vnet("trace", source, target, "--udp", "53", "--live")
    assert code == ExitCode.EXPECTATION_FAILED
    assert "no packet was sent: a flow of somebody else's could bring it to a guest past our tables: xen1 LOOKUP" in out
    assert not any(map(is_marked, got))


@pytest.mark.parametrize("network", ["vx", "vlan"])
def test_a_cable_that_is_cut(lab: Lab, vnet: Run, network: str) -> None:
    """Every switch says that all is well; only a packet can tell."""
    source, target = (f"{vm_of(network, host, 1)}/0" for host in ("xen1", "xen2"))
    cut = (lambda done: lab.driver.cut_nic("xen2", "eth7", done)) if network == "vlan" else (lambda done: lab.driver.cut_underlay("xen2", done))  # fmt: skip
    cut(True)
    try:
        code, out = vnet("trace", source, target, "--tcp", "443", "--live")
    finally:
        cut(False)
    assert code == ExitCode.EXPECTATION_FAILED
    # On the VLAN the question for the MAC is no packet, so the answer to it is the first one.
    way = "xen2 sent it to xen1" if network == "vlan" else "xen1 sent it to xen2"
    assert f"the packet was lost: {way}, which never got it" in out
    assert "NOT reached by the hosts' switches and by packets that were sent" in out
    wait_until(lambda: vnet("trace", source, target, "--live")[0] == ExitCode.OK, "as before")


def test_a_packet_that_cannot_be_marked_is_only_asked_about(lab: Lab, vnet: Run) -> None:
    source, target = vm_of("vx", "xen1", 1), vm_of("vx", "xen2", 1)
    code, out = vnet("trace", source, target, "--packet", "Ether(type=0x88b5)/Raw('x' * 50)", "--live")
    assert "no packet was sent: only ARP, IPv4 and IPv6 can be marked" in out
    mac = lab.vif(f"{source}/0").mac
    code, out = vnet("trace", source, target, "--packet", f"Ether(src='{mac}')/IP(src='{lab.vif(source + '/0').addresses[0]}', ttl=9)/UDP()", "--live")  # fmt: skip
    assert code == ExitCode.OK, out
    assert f"the packet came to {target}/0" in out


def test_expectations_with_packets(lab: Lab, vnet: Run, tmp_path: Path) -> None:
    document = tmp_path / "expected.vnet.yaml"
    lines = [
        f"  - {{from: {vm_of('vx', 'xen1', 1)}, to: {vm_of('vx', host, 1)}, protocol: tcp, port: {port}, expect: reachable}}"
        for host in ("xen2", "xen3") for port in range(80, 80 + PORTS)
    ]  # fmt: skip
    lines.append("  - {from: vx, to: vy, expect: unreachable}")
    head = (lab.spec.dir / "pool.yaml").read_text() if (lab.spec.dir / "pool.yaml").exists() else None
    with Client(lab.daemons.env["VNET_CONTROLLER"]) as client:
        head = head or client.export()
    document.write_text(head + "\nexpectations:\n" + "\n".join(lines) + "\n")
    code, out = vnet("check", document, "--live")
    assert (code, out.count("ok ")) == (ExitCode.OK, len(lines)), out
    lab.driver.cut_underlay("xen3", True)
    try:
        code, out = vnet("check", document, "--live")
    finally:
        lab.driver.cut_underlay("xen3", False)
    assert (code, out.count("ok "), out.count("FAIL")) == (ExitCode.EXPECTATION_FAILED, len(lines) - PORTS, PORTS), out
    assert "xen1 sent it to xen3, which never got it" in out


@contextmanager
def foreign_flow(lab: Lab, host: str, flow: str) -> Iterator[None]:
    """Somebody's own flow, which agents leave alone."""
    lab.ovs(host).ofctl("add-flow", "br-int", f"cookie=0x99,{flow}")
    try:
        yield
    finally:
        lab.ovs(host).ofctl("del-flows", "br-int", "cookie=0x99/-1")


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("network", ["vx", "vlan"])
async def test_a_vif_that_moves_is_sent_to_and_gets_nothing(
    shared_lab: SharedLab, network: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held, the destination's port is shut, so a packet is caught where the VIF runs; receiving, in both places."""
    async with moves(shared_lab, network) as pool:
        lab, caught_at = pool.lab, {"held": {A}, "receiving": {A, B}}
        monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])
        await pool.prepare()
        for state in ("held", "receiving"):
            if state == "receiving":
                await pool.state(B, "receiving")
                await until(lambda: any("table=90" in f and "priority=100" in f for f in pool.flows(B)), "open")
            with captured(lab, f"on-{A}/0") as got:
                for source in (f"on-{A}", f"on-{B}", f"on-{C}"):
                    capsys.readouterr()
                    code = await asyncio.to_thread(main.run, ["trace", source, "moving", "--live", "-o", "json"])
                    out = capsys.readouterr().out
                    # Open, the destination's port takes what its own host's VIFs send, though the guest does not run there yet.
                    # The key of a VLAN network's relay, which this pool has chosen, is not told to clients.
                    if network != "vlan" and (state, source) != ("receiving", f"on-{B}"):
                        assert (code, json.loads(out)["differences"]) == (ExitCode.OK, []), out
                    ping = next(leg for leg in legs(out) if leg["title"] == f"ping from {source}/0")
                    where = {one["host"] for one in ping["packet"]["caught"]}  # type: ignore[index]
                    assert where <= caught_at[state], (state, source)
                    assert where, (state, source)
            assert not any(map(is_marked, got))
