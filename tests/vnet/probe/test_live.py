"""Twin and pool asked the same: alike for what arrives and what is dropped, and where they are not, it says where."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ovsctl.ovsdb import Insert, OvsdbClient, Select
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.sim.pools import TWO_HOSTS, talk
from vnet.agent.ofproto_trace import metadata
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import Client
from vnet.compile import Category, cookie
from vnet.db.probes import Probe
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.probe.controller_client import asker
from vnet.probe.live_trace import LiveTrace, answered, conversation
from vnet.probe.ofproto_trace_parser import UNRESOLVED, parse_trace
from vnet.probe.trace_comparison import Ask, TraceReply, TraceRequest
from vnet.sim import SimPool
from vnet.sim.conversation import Party, party
from vnet.sim.packets import resolve
from vnet.topology import load

EXPECTED = (
    TWO_HOSTS
    + b"""
expectations:
  - {name: web to db, from: web1/0, to: db1/0, protocol: tcp, port: 5432, expect: reachable}
  - {name: tenants apart, from: legacy, to: prod, expect: unreachable}
  - {name: prod is outside, from: outside, to: db1/1, expect: reachable}
"""
)
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def state() -> PoolState:
    return desired_state(load(TWO_HOSTS, "two-hosts.vnet.yaml"), PoolState())


@pytest.fixture(scope="module")
def lab(ovs: None, state: PoolState) -> Iterator[Lab]:
    with Lab.up(state, name=new_name(), driver=Driver.DUMMY, daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        yield lab


@pytest.fixture
def vnet(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command against the lab's controller: its exit code and what it printed."""
    monkeypatch.setenv("VNET_CONTROLLER", lab.daemons.env["VNET_CONTROLLER"])

    def run(*args: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        code = main.run([str(arg) for arg in args])
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "expected.vnet.yaml"
    path.write_bytes(EXPECTED)
    return path


@contextmanager
def foreign_flow(lab: Lab, host: str, flow: str) -> Iterator[None]:
    """Somebody's own flow, which agents leave alone."""
    lab.ovs(host).ofctl("add-flow", "br-int", f"cookie=0x99,{flow}")
    try:
        yield
    finally:
        lab.ovs(host).ofctl("del-flows", "br-int", "cookie=0x99/-1")


@contextmanager
def signalled(lab: Lab, host: str) -> Iterator[None]:
    lab.daemons.signal(host, signal.SIGSTOP)
    try:
        yield
    finally:
        lab.daemons.signal(host, signal.SIGCONT)


def heard(pool: SimPool, ask: Ask, *ends: Party) -> LiveTrace:
    """A ping, asked of the switches and not sent."""
    (found,) = answered(pool, ask, [conversation(pool, *ends)])
    assert isinstance(found, LiveTrace)
    return found


PAIRS = [
    ("web1/0", "db1/0", "vnet-vxlan with key 5001 to 10.99.0.2"), ("web1/2", "db1/2", "vnet-gre with key 77 to 10.99.0.2"),
    ("free1/0", "free2/0", "vnet-geneve"), ("web1/1", "db1/1", "int-trunk0"), ("free1/1", "free2/1", "int-bond0"),
    ("web1/0", "web2/0", "web2/0"), ("web1/1", "outside", "int-trunk0"), ("outside", "db1/1", "xen2, in by int-trunk0"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "through"), PAIRS)
def test_twin_and_pool_agree_on_what_arrives(vnet: Run, source: str, target: str, through: str) -> None:
    code, out = vnet("trace", source, target, "--tcp", "443", "--live", "--full")
    assert code == ExitCode.OK, out
    assert through in out
    assert "disagree" not in out
    assert "    ! " not in out
    found = json.loads(vnet("trace", source, target, "--tcp", "443", "--live", "-o", "json")[1])
    assert found["reached"]
    assert found["twin"] == {"reached": True, "agrees": True}
    assert len(found["legs"]) == 5


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (["--packet", "Ether(src='0a:00:00:00:00:99')/IP()"], "GUARD     priority 0 of every network"),
        (["--packet", "Ether(dst='0a:00:00:00:00:99')/IP(src='10.1.0.2')"], ""),
    ],
)
def test_they_agree_on_what_is_dropped(vnet: Run, args: list[str], where: str) -> None:
    code, out = vnet("trace", "web1/0", "db1/0", *args, "--live")
    assert code == ExitCode.EXPECTATION_FAILED
    assert "NOT reached" in out
    assert "nobody would get it, and the twin agrees" in out
    assert where in out


def test_a_flow_of_somebody_else_is_named(lab: Lab, vnet: Run) -> None:
    with foreign_flow(lab, "xen2", "table=50,priority=60000,actions=drop"):
        code, out = vnet("trace", "web1/0", "db1/0", "--live")
        found = json.loads(vnet("trace", "web1/0", "db1/0", "--live", "-o", "json")[1])
    assert code == ExitCode.EXPECTATION_FAILED
    assert (
        "twin and pool disagree: xen2 LOOKUP: the twin matches priority 50 of every network, the switch matches priority 60000 of "
        "a flow that is not ours (everything), which drops, only the twin sends to db1/0"
    ) in out
    assert (found["reached"], found["twin"]) == (False, {"reached": True, "agrees": False})
    assert vnet("trace", "web1/0", "db1/0", "--live")[0] == ExitCode.OK


def test_a_frame_goes_on_where_the_real_switch_sends_it(lab: Lab, vnet: Run) -> None:
    port = lab.ovs("xen1").vsctl("get", "interface", lab.spec.device(lab.vif("web2/0")), "ofport").strip()
    with foreign_flow(lab, "xen1", f"table=50,priority=60000,ip,actions=output:{port}"):
        code, out = vnet("trace", "web1/0", "db1/0", "--udp", "53", "--live")
    assert code == ExitCode.EXPECTATION_FAILED
    assert "udp 53 from web1/0: web2/0 would get it; the twin: delivered to db1/0" in out
    assert "xen2" not in out.split("udp 53 from web1/0")[1]


def test_a_flow_that_was_taken_away(lab: Lab, state: PoolState, vnet: Run) -> None:
    """The agent would put it back at once, so it is stopped, and the switch asked without it."""
    pool = SimPool.of(state)
    ids = {lab.spec.device(vif): vif.id for guest in lab.spec.guests for vif in guest.vifs}

    def ask_one(question: TraceRequest) -> TraceReply:
        ovs = lab.ovs(question.host)
        ports = {
            name: int(ovs.vsctl("get", "interface", name, "ofport"))
            for name in ovs.vsctl("list-ports", "br-int").split()
        }
        vifs = {number: ids[name] for name, number in ports.items() if name in ids}
        devices = {number: name for name, number in ports.items() if name not in ids}
        came_in = next(n for n, name in {**vifs, **devices}.items() if name == (question.vif or question.device))
        tunnel = question.key, question.source, question.target
        probe = Probe("x", question.host, 0, question.frame.hex(), question.vif, question.device, *tunnel)
        text = ovs.appctl("ofproto/trace", "br-int", metadata(probe, came_in), question.frame.hex())
        return TraceReply(text, vifs, devices)

    def ask(questions: Sequence[TraceRequest]) -> list[TraceReply]:
        return [ask_one(question) for question in questions]

    ends = party(pool, pool.vif("web1/0")), party(pool, pool.vif("db1/0"))
    with signalled(lab, "xen2"):
        lab.ovs("xen2").ofctl("del-flows", "br-int", f"cookie={cookie(Category.VIF, 'db1/0'):#x}/-1,table=84")
        found = heard(pool, ask, *ends)
    assert (found.reached, found.twin_reached, found.agrees) == (False, True, False)
    (said,) = found.differences
    assert said == (
        "xen2 DELIVER: the twin matches priority 100 of VIF db1/0, the switch matches priority 0 of every network, "
        "which drops, only the twin sends to db1/0"
    )
    wait_until(lambda: vnet("trace", "web1/0", "db1/0", "--live")[0] == ExitCode.OK, "the agent puts the flow back")


def test_a_host_that_does_not_answer(lab: Lab, vnet: Run, document: Path) -> None:
    with signalled(lab, "xen2"):
        code, out = vnet("trace", "web1/0", "db1/0", "--live", "--wait", "0.3")
        assert code == ExitCode.EXPECTATION_FAILED
        assert "not heard: the agent of host xen2 did not answer within 0.3 s" in out
        assert "xen1, in by web1/0" in out
        code, out = vnet("check", document, "--live", "--wait", "0.3")
        assert code == ExitCode.EXPECTATION_FAILED
        assert "may or may not reach" in out
    assert vnet("trace", "web1/0", "db1/0", "--live")[0] == ExitCode.OK


def test_a_tunnel_that_has_no_route(lab: Lab, vnet: Run) -> None:
    """The flows are right and nothing leaves: only the real switch can tell."""
    ovs = lab.ovs("xen1")
    ovs.appctl("ovs/route/del", "10.99.0.0/24")
    try:
        code, out = vnet("trace", "web1/0", "db1/0", "--live")
    finally:
        ovs.appctl("ovs/route/add", "10.99.0.0/24", "br-phy")
    assert code == ExitCode.EXPECTATION_FAILED
    assert "native tunnel routing failed" in out


def test_a_tunnel_whose_far_end_is_not_resolved_yet(lab: Lab, state: PoolState, vnet: Run) -> None:
    """The first real packet has the host ask for the peer's MAC: that is no disagreement. A tunnel to elsewhere is one."""
    ovs, pool = lab.ovs("xen1"), SimPool.of(state)
    device = lab.spec.device(lab.vif("web1/0"))
    frame = resolve(talk(pool, "web1/0", "db1/0"))[0]
    tunnel = ovs.vsctl("get", "interface", "vnet-vxlan", "ofport").strip()
    actions = f"set_field:5001->tun_id,set_field:10.99.0.77->tun_dst,output:{tunnel}"
    with foreign_flow(lab, "xen1", f"table=50,priority=60000,actions={actions}"):
        text = ovs.appctl("ofproto/trace", "br-int", f"in_port={device}", frame.hex())
        _, out = vnet("trace", "web1/0", "db1/0", "--live")
    assert UNRESOLVED in text
    assert parse_trace(text).dropped
    assert "only the switch sends to vnet-vxlan with key 5001 to 10.99.0.77" in out

    with Client(lab.daemons.env["VNET_CONTROLLER"]) as client:
        ask = asker(client, 5.0)

        def unresolved(questions: Sequence[TraceRequest]) -> list[TraceReply]:
            return [replaced(answer) for answer in ask(questions)]

        def replaced(answer: TraceReply) -> TraceReply:
            text, _, _ = answer.text.replace("-> tunneling from", f"-> {UNRESOLVED} for").partition(
                "Datapath actions: "
            )
            return replace(answer, text=f"{text}Datapath actions: drop\n") if UNRESOLVED in text else answer

        found = heard(pool, unresolved, party(pool, pool.vif("web1/2")), party(pool, pool.vif("db1/2")))
    assert (found.reached, found.differences) == (True, [])
    assert (
        found.render(full=True).count(f"the switch says: {UNRESOLVED} for") == 4
    )  # each packet at the host that sends it


def test_expectations_of_the_pool_that_runs(lab: Lab, vnet: Run, document: Path) -> None:
    code, out = vnet("check", document, "--live")
    assert (code, out.count("ok ")) == (ExitCode.OK, 3), out
    with foreign_flow(lab, "xen2", "table=50,priority=60000,ip,actions=drop"):
        code, out = vnet("check", document, "--live")
        assert code == ExitCode.EXPECTATION_FAILED
        assert vnet("check", document)[0] == ExitCode.OK
    failed = next(line for line in out.splitlines() if line.startswith("FAIL"))
    assert failed.endswith("web to db: web1/0 does not reach db1/0")
    assert f"{document}:{EXPECTED.decode().splitlines().index('expectations:') + 2}:" in failed
    assert "xen2 LOOKUP" in out


def test_an_expectation_that_should_not_hold(vnet: Run, document: Path) -> None:
    document.write_bytes(EXPECTED.replace(b"expect: reachable", b"expect: unreachable", 1))
    code, out = vnet("check", document, "--live", "-o", "json")
    failed = [row for row in json.loads(out) if not row["holds"]]
    assert (code, [row["why"] for row in failed]) == (ExitCode.EXPECTATION_FAILED, ["web1/0 reaches db1/0"])
    assert failed[0]["trace"]["reached"]


def test_a_question_that_an_agent_refuses(lab: Lab) -> None:
    """Rows that no controller writes are answered with why, and the agent goes on."""

    async def ask(**columns: object) -> str:
        async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], "Vnet") as client:
            row = {"id": f"{time.monotonic_ns()}", "host": "xen1", "created": 0, "frame": "00" * 14, "vif": "web1/0"}
            row |= columns
            await client.transact(Insert("Probe", row))
            while True:
                (found,) = await client.transact(Select("Probe", (("id", "==", row["id"]),), ("answer",)))
                if found[0]["answer"]:
                    return str(json.loads(found[0]["answer"]).get("problem", ""))
                await asyncio.sleep(0.01)

    for columns, says in (
        ({"frame": "zz"}, "hexadecimal"), ({"frame": "0000"}, "Ethernet header"), ({"device": "both"}, "either"),
        ({"vif": "nobody/0"}, "no port for VIF nobody/0"), ({"vif": "", "device": "eth9"}, "no port eth9"),
        ({"tun_src": "10.0.0.1,actions=drop"}, "tunnel"), ({"tun_id": -1}, "tun_id: -1 is outside"), ({}, ""),
    ):  # fmt: skip
        assert says in asyncio.run(ask(**columns)), columns


def test_the_pool_as_a_document_would_make_it(vnet: Run, tmp_path: Path) -> None:
    changed = tmp_path / "changed.vnet.yaml"
    changed.write_bytes(
        TWO_HOSTS.replace(b"db1: {host: xen2, vifs: [{network: tenant}", b"db1: {host: xen2, vifs: [{network: gnv}")
    )
    assert vnet("trace", "web1/0", "db1/0")[0] == ExitCode.OK
    code, out = vnet("trace", "web1/0", "db1/0", "--plan", changed)
    assert code == ExitCode.EXPECTATION_FAILED
    assert f"{changed}:" in out
    code, out = vnet("trace", "free1/0", "db1/0", "--plan", changed)
    assert (code, "vnet-geneve" in out) == (ExitCode.OK, True)
    for two in (["--plan", changed, "--live"], ["--file", changed, "--live"], ["--file", changed, "--plan", changed]):
        assert vnet("trace", "web1/0", "db1/0", *two)[0] == ExitCode.USAGE
