"""Agents of hosts that have none on them: over verified TLS, from another machine, which another takes over when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ovsctl.openflow import listener as listening
from ovsctl.openflow.listener import OpenFlowListener
from ovsctl.ovsdb import Insert, OvsdbClient, Select, Tls, certified_names
from tests.authorities import TestAuthority
from tests.polling import until
from tests.servers import Vswitchd, end, free_port, ovsdb_server, spawn, vswitchd
from tests.servicemanager import ServiceManager
from tests.vnet.agent.capturing import Asking
from tests.vnet.agent.pool import LAB, SCHEMA, Elsewhere, HostUnderTest, PoolUnderTest, add_port, vif
from vnet.agent import agent as agents
from vnet.agent import host_claim
from vnet.agent.switch_access import ELSEWHERE, WITHOUT, Doorway
from vnet.cli import doctor
from vnet.db.captures import CapturedVif, Counts, unpacked
from vnet.db.probes import Answer, Probe
from vnet.db.roles import role_operations
from vnet.db.rows import SCHEMA_NAME, from_row, to_columns
from vnet.objects import AgentStatus, Host, Pool
from vnet.util.transport import CA

pytestmark = pytest.mark.usefixtures("ovs")

PAGE = Path(__file__).parents[3] / "docs/remote.md"
AGENTS = re.compile(r"^(vnet agent(?:.*\\\n)*.*)$", re.M)
# As ovs-ctl(8) starts it: what it listens at, and its certificate, are in its own database.
AS_PACKAGED = (
    "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
    "--private-key=db:Open_vSwitch,SSL,private_key",
    "--certificate=db:Open_vSwitch,SSL,certificate",
    "--ca-cert=db:Open_vSwitch,SSL,ca_cert",
)
FRAME = bytes(
    Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02") / IP(src="10.1.0.1", dst="10.1.0.2") / UDP() / (b"x" * 60)
).hex()


@dataclass
class Machine:
    """A machine that runs agents of other hosts."""

    identity: Tls
    listener: OpenFlowListener = field(init=False)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = OpenFlowListener(
            0, "127.0.0.1", tls=self.identity.server_context, names=certified_names,
            on_refused=lambda _, reason: self.refused.append(reason),
        )  # fmt: skip

    def host(self, name: str, switch: Vswitchd, port: int, pool: str) -> HostUnderTest:
        """Its agent for a host, whose switch's database listens at a port."""
        doorway = Doorway(self.listener, f"ssl:127.0.0.1:{self.listener.port}")
        tls = Tls(self.identity.private_key, self.identity.certificate, self.identity.ca_certificate, peer=name)
        return HostUnderTest(name, switch, [pool], elsewhere=Elsewhere(f"ssl:127.0.0.1:{port}", doorway, tls))


@contextlib.contextmanager
def bare_host(tls: Tls, port: int = 0) -> Iterator[tuple[Vswitchd, int]]:
    """A host with nothing but Open vSwitch, set up as docs/remote.md says, and the port of its database."""
    with vswitchd(options=AS_PACKAGED) as switch:
        port = port or free_port()
        switch.server.vsctl("set-ssl", str(tls.private_key), str(tls.certificate), str(tls.ca_certificate))
        switch.server.vsctl("set-manager", f"pssl:{port}:127.0.0.1")
        yield switch, port


@contextlib.asynccontextmanager
async def pool_without_agents(*hosts: str) -> AsyncIterator[PoolUnderTest]:
    with ovsdb_server(SCHEMA) as server:
        async with OvsdbClient([server.remote], SCHEMA_NAME) as client:
            pool = PoolUnderTest(server, client, {})
            await client.transact(*role_operations())
            await pool.insert(Pool("test"), LAB, *(Host(name, f"10.99.0.{i}") for i, name in enumerate(hosts, 1)))
            await pool.insert(vif(1, "lab"), vif(2, "lab"))
            try:
                yield pool
            finally:
                for host in pool.hosts.values():
                    await host.stop()


def delivered(host: HostUnderTest) -> int:
    """The frames that VIF vm2/0 has had."""
    return int(host.switch.ofctl("dump-ports", "br-int", "p2").partition("tx pkts=")[2].partition(",")[0])


def send(host: HostUnderTest, frames: int) -> None:
    """Frames from VIF vm1/0 to vm2/0."""
    host.switch.appctl("netdev-dummy/receive", "p1", *[FRAME] * frames)


def kept(before: dict[str, int], after: dict[str, int]) -> None:
    """The same flows, none of which was taken out meanwhile."""
    assert before.keys() == after.keys()
    assert all(after[flow] >= count for flow, count in before.items())


def trusting(tls: Tls, authority: TestAuthority) -> Tls:
    """An identity that takes us for one of its own."""
    return replace(tls, ca_certificate=authority.directory / CA)


async def plugged(pool: PoolUnderTest, host: HostUnderTest) -> None:
    """The host's agent has taken it up, with two VIFs."""
    await until(lambda: host.agent.flows.connected, "the switch connects")
    for number in (1, 2):
        host.add_port(f"p{number}", f"vm{number}/0")
        await pool.wait_ready(f"vm{number}/0", "xen1")


async def answer_to_trace(pool: PoolUnderTest) -> str:
    """What the host says to a question that needs ovs-vswitchd's control socket."""
    question = Probe("q1", "xen1", 0, FRAME, vif="vm1/0")
    await pool.client.transact(Insert("Probe", to_columns(question)))

    async def answer() -> str:
        (rows,) = await pool.client.transact(Select("Probe", (), ("answer",)))
        return str(rows[0]["answer"]) if rows else ""

    return Answer.decode(await until(answer, "an answer")).problem


def counted(host: HostUnderTest) -> dict[str, int]:
    """The flows of br-int, each with its packets: one that was taken out and put in again counts anew."""
    found = {}
    for line in host.switch.ofctl("dump-flows", "br-int").splitlines()[1:]:
        fields = [
            f.removeprefix("send_flow_rem ")
            for f in line.strip().split(", ")
            if not f.removeprefix("send_flow_rem ").startswith(("duration", "n_bytes", "idle_age", "n_packets"))
        ]
        found[", ".join(fields)] = int(line.partition("n_packets=")[2].partition(",")[0])
    return found


async def test_a_host_with_nothing_but_open_vswitch_is_programmed_over_tls(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    machine = Machine(authority.server())
    with bare_host(authority.switch("xen1")) as (switch, port):
        async with pool_without_agents("xen1") as pool, machine.listener:
            host = pool.hosts["xen1"] = machine.host("xen1", switch, port, pool.server.remote)
            host.start()
            await plugged(pool, host)
            send(host, 10)
            await until(lambda: delivered(host) == 10, "frames")
            asking = Asking(pool, vifs=[CapturedVif("vm1/0", "lab")])
            await asking.begin()
            await asking.measured()
            send(host, 3)
            while asking.reports[-1].counts[0] != Counts(3, 0):
                await asking.take()
            frames = [frame for report in asking.reports for frame in unpacked(report.frames, 2)]
            assert [frame.frame.hex() for frame in frames if frame.interface == 0] == [FRAME] * 3
            await asking.end()
            await until(lambda: not host.agent.compiler.inputs.captures, "the capture ends")
            # The host goes on by itself while the agent is away: no flow of a service controller goes with it.
            assert switch.server.vsctl("get", "bridge", "br-int", "fail_mode") == "secure\n"
            assert switch.server.vsctl("get", "controller", "br-int", "type") == "service\n"
            await until(lambda: "ct_zone" in switch.server.vsctl("list", "datapath"), "what the datapath has")
            assert await answer_to_trace(pool) == f"Open vSwitch of host xen1: {ELSEWHERE}"
            before = counted(host)
            await host.stop()
            send(host, 10)
            await until(lambda: delivered(host) == 23, "frames")
            host.start()
            await until(lambda: host.agent.flows.connected and host.agent.rows.settled, "the next agent")
            kept(before, counted(host))
            # A bridge that waits before it tries again is told to try now. That is nobody's drift, and takes no flow along.
            client = host.agent.flows._client
            host.agent.rows.reconnect("br-int")
            await until(
                lambda: host.agent.flows.connected and host.agent.flows._client is not client, "a new connection"
            )
            kept(before, counted(host))
            assert "drift" not in await pool.events()
            assert machine.refused == []


async def test_another_machine_takes_a_host_over_and_loses_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is only cut off from the pool: it learns from the switch that it is the host's no more."""
    monkeypatch.setattr(agents, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(host_claim, "LOOK_S", 0.05)
    monkeypatch.setattr(host_claim, "SILENT_S", 0.5)
    monkeypatch.setattr(host_claim, "HEARD_SILENT_S", 3600.0)
    authority = TestAuthority(tmp_path)
    machines = Machine(authority.server()), Machine(authority.server())
    with bare_host(authority.switch("xen1")) as (switch, port):
        async with pool_without_agents("xen1") as pool, machines[0].listener, machines[1].listener:
            own_way = free_port()
            pool.server.appctl("ovsdb-server/add-remote", f"ptcp:{own_way}:127.0.0.1")
            first = pool.hosts["xen1"] = machines[0].host("xen1", switch, port, f"tcp:127.0.0.1:{own_way}")
            first.start()
            await plugged(pool, first)
            second = pool.hosts["second"] = machines[1].host("xen1", switch, port, pool.server.remote)
            second.start()
            await until(lambda: second.agent.claim.holder, "the second stands by")
            assert not second.agent.complete
            before, sent = counted(first), 0
            pool.server.appctl("ovsdb-server/remove-remote", f"ptcp:{own_way}:127.0.0.1")
            assert first.task is not None
            while not (first.task.done() and second.agent.flows.connected and second.agent.rows.settled):
                await asyncio.to_thread(send, first, 5)
                sent += 5
            await until(lambda: delivered(second) == sent, "frames")
            assert isinstance(first.task.exception(), BaseExceptionGroup)
            assert first.task.exception().subgroup(host_claim.DisplacedAgent) is not None  # type: ignore[union-attr]
            first.task = None
            kept(before, counted(second))
            assert switch.server.vsctl("get-controller", "br-int") == f"{second.agent.access.target}\n"
            pool.hosts["xen1"] = pool.hosts.pop("second")
            await pool.insert(vif(3, "lab"))
            second.add_port("p3", "vm3/0")
            await pool.wait_ready("vm3/0", "xen1")


async def test_a_strangers_switch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another CA; of the CA, but another host's; and a database that is another host's."""
    monkeypatch.setattr(listening, "PATIENCE_S", 0.2)
    authority, others = TestAuthority(tmp_path / "ours"), TestAuthority(tmp_path / "others")
    machine = Machine(authority.server())
    others.server()
    with ExitStack() as stack:
        switch, port = stack.enter_context(bare_host(authority.switch("xen1")))
        stranger, stranger_port = stack.enter_context(bare_host(authority.switch("xen2")))
        foreign, foreign_port = stack.enter_context(bare_host(trusting(others.switch("xen1"), authority)))
        async with pool_without_agents("xen1") as pool, machine.listener:
            host = pool.hosts["xen1"] = machine.host("xen1", switch, port, pool.server.remote)
            host.start()
            await plugged(pool, host)
            datapath_id = switch.server.vsctl("get", "bridge", "br-int", "datapath_id").strip().strip('"')
            for other, reason in (
                (stranger, f"a bridge with datapath id {datapath_id} with the certificate of xen2"),
                (foreign, "certificate verify failed"),
            ):
                other.server.vsctl(
                    "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=dummy", "fail_mode=secure",
                    f"other_config:datapath-id={datapath_id}", "--", "set-controller", "br-int", host.agent.access.target,
                )  # fmt: skip
                await until(lambda reason=reason: any(reason in text for text in machine.refused), reason)  # type: ignore[misc]
                assert "table=" not in other.ofctl("dump-flows", "br-int")
            send(host, 10)
            await until(lambda: delivered(host) == 10, "frames")
            assert host.agent.flows.connected
            for wrong_port, reason in ((stranger_port, "not of xen1"), (foreign_port, "certificate verify failed")):
                misled = pool.hosts["misled"] = machine.host("xen1", switch, wrong_port, pool.server.remote)
                misled.start()
                await until(lambda: reason in str(misled.agent.facts.ovs), f"{reason}: {misled.agent.facts.ovs}")  # noqa: B023
                await misled.stop()


async def test_one_process_has_several_hosts_and_says_what_each_goes_without(tmp_path: Path) -> None:
    authority, ports = TestAuthority(tmp_path), {name: free_port() for name in ("xen1", "xen2", "openflow")}
    authority.server()
    switches: dict[str, Vswitchd] = {}
    async with pool_without_agents("xen1", "xen2") as pool:
        (line,) = AGENTS.findall(PAGE.read_text())
        for text, here in (
            ("unix:/run/vnet/pool.sock", pool.server.remote),
            ("pssl:6653", f"pssl:{ports['openflow']}:127.0.0.1"),
            ("ssl:10.0.0.11:6640", f"ssl:127.0.0.1:{ports['xen1']}"),
            ("ssl:10.0.0.12:6640", f"ssl:127.0.0.1:{ports['xen2']}"),
        ):
            assert text in line
            line = line.replace(text, here)
        command: list[str | Path] = [sys.executable, "-m", "vnet.cli.main", *shlex.split(line.replace("\\\n", " "))[1:]]
        command += ["--switch-pki-dir", tmp_path, "--socket", tmp_path / "agent.sock"]
        with ExitStack() as stack:
            manager = stack.enter_context(ServiceManager(tmp_path / "notify"))
            switches["xen1"], _ = stack.enter_context(bare_host(authority.switch("xen1"), ports["xen1"]))
            process = spawn(command, log=tmp_path / "log", env=manager.env)
            stack.callback(end, process)
            # One host is away: that keeps no other's agent from its work, nor from being ready.
            await until(
                lambda: "host xen2: Open vSwitch's database does not answer" in manager.status, "what it waits for"
            )
            await until(lambda: manager.ready, "ready")
            switches["xen2"], _ = stack.enter_context(bare_host(authority.switch("xen2"), ports["xen2"]))
            await until(lambda: "programs 2 hosts" in manager.status, "both")
            for number, switch in enumerate(switches.values(), 1):
                add_port(switch, f"p{number}", f"vm{number}/0")
            await until(lambda: "with 2 VIFs there" in manager.status, "both VIFs")

            async def bound() -> bool:
                return {(b.vif, b.host) for b in (await pool.bindings()).values() if b.ready} == {
                    ("vm1/0", "xen1"),
                    ("vm2/0", "xen2"),
                }

            await until(bound, "both VIFs are ready, each on its host")
            looked = await asyncio.to_thread(lambda: list(doctor.examine(str(tmp_path / "agent-xen2.sock"))))
            found = {each.subject: each for each in looked}
            assert found["bridges of host xen2"].finding is doctor.Diagnosis.OK
            assert {f"{part} of host xen2" for part in WITHOUT} <= found.keys()
            assert not any(each.subject.startswith("path to") for each in looked)
            (rows,) = await pool.client.transact(Select("Agent", (("host", "==", "xen2"),)))
            assert from_row(AgentStatus, rows[0]).elsewhere == socket.gethostname()
