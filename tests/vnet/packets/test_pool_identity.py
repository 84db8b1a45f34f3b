"""A pool database that is empty, another pool's or older than what hosts have followed changes nothing on them, and is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovsctl.ovsdb import Delete
from tests.labs import new_name
from tests.polling import until, wait_until
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet import api
from vnet.api.errors import NoRoom, Unreachable
from vnet.client import Client
from vnet.client.local import call_agent
from vnet.db.database import PoolDatabase
from vnet.lab import Driver, Lab
from vnet.lab.daemons import CONTROLLER
from vnet.lab.names import CONTROLLER_ADDRESS, NETNS_DIR, POOL_PORT, underlay_netns
from vnet.objects import Pool, PoolState, Vif, Vm

pytestmark = pytest.mark.usefixtures("netns")

A, B, C = HOSTS
ENDS = ("near", "far")
OTHER_POOL = b"{apiVersion: vnet/v1, pool: another, hosts: {xen1: {address: 10.99.0.1}}, networks: {vx: {type: vxlan}}}"


@pytest.fixture
def lab() -> Iterator[Lab]:
    networks = {kind: NETWORKS[kind] for kind in ("vx", "vlan")}
    vifs = {
        f"{end}-{kind}/0": Vif(
            f"{end}-{kind}/0", kind, f"0a:00:00:00:0{n}:0{m}", vm=f"{end}-{kind}", addresses=(f"10.{n}.0.{m}",)
        )
        for n, kind in enumerate(networks, 1)
        for m, end in enumerate(ENDS, 1)
    }
    vms = {str(vif.vm): Vm(str(vif.vm), A if "near" in vif.id else B) for vif in vifs.values()}
    state = PoolState(Pool("mine", underlay_mtu=1600), HOSTS, networks, {}, vms, vifs)
    with Lab.up(state, name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        running.wait_ready()
        running.daemons.settle()
        yield running


@contextlib.contextmanager
def nothing_lost(lab: Lab) -> Iterator[None]:
    """Streams both ways on each network lose no frame meanwhile, and no host's flows change."""
    pairs = [(f"{a}-{kind}/0", f"{b}-{kind}/0") for kind in ("vx", "vlan") for a, b in (ENDS, ENDS[::-1])]
    before = {host: flows(lab, host) for host in HOSTS}
    with contextlib.ExitStack() as stack:
        running = {a: (stack.enter_context(lab.stream(a, b, period_ms=5)), b) for a, b in pairs}
        go_on(running)
        yield
        wait_sent(running, go_on(running))
    for stream, to in running.values():
        assert (stream.report.at(to).lost, stream.report.at(to).duplicated) == (0, 0)
    assert {host: flows(lab, host) for host in HOSTS} == before


def flows(lab: Lab, host: str) -> list[str]:
    return sorted(lab.ovs(host).ofctl("dump-flows", "br-int", "--no-stats").splitlines())


def status(lab: Lab, host: str) -> dict[str, object]:
    """What a host's agent tells on its socket; nothing as long as it starts."""
    with contextlib.suppress(Unreachable):
        return call_agent("status", {}, str(lab.daemons.agent_socket(host)))  # type: ignore[no-any-return]
    return {"problems": {}, "followed": None}


def followed(lab: Lab, host: str) -> int:
    """The revision of its pool up to which a host has followed it."""
    return call_agent("status", {}, str(lab.daemons.agent_socket(host)))["followed"]["revision"]  # type: ignore[no-any-return]


def vif_flows(lab: Lab) -> list[object]:
    return call_agent("flows", {"vif": "near-vx/0"}, str(lab.daemons.agent_socket(A)))  # type: ignore[no-any-return]


def stop_database(lab: Lab) -> Path:
    """Ends the controller and its database; where the database's file is."""
    lab.daemons.kill(CONTROLLER)
    pid = int((lab.daemons.dir / "pool.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the database has ended")
    return lab.daemons.dir / "state" / "pool.db"


def client(lab: Lab) -> Client:
    return Client(f"unix:{lab.daemons.controller_socket}")


def revision(lab: Lab) -> int:
    with client(lab) as asked:
        pool = asked.status().pool
    assert pool is not None
    return pool.revision


def refused(lab: Lab, text: str) -> None:
    """Each host says why it follows the database no more."""
    for host in HOSTS:
        wait_until(lambda host=host: text in str(status(lab, host)["problems"]), f"{host} tells")  # type: ignore[misc]


def follow_again(lab: Lab, file: Path, right: Path) -> None:
    """With the right database back, hosts follow it: a VIF that is new is made ready."""
    stop_database(lab)
    shutil.copy(right, file)
    lab.daemons.start_controller()
    with client(lab) as asked:
        wait_until(lambda: asked.status().live_hosts == len(HOSTS), "all hosts report")
    lab.daemons.settle()
    for host in HOSTS:
        wait_until(lambda host=host: status(lab, host)["problems"] == {}, "nothing is wrong")  # type: ignore[misc]


def empty(file: Path, _: Path) -> None:
    file.unlink()


def older(file: Path, snapshot: Path) -> None:
    shutil.copy(snapshot, file)


CASES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "empty": (empty, "has no pool"),
    "older": (older, "is at revision"),
}


@pytest.mark.parametrize("case", CASES)
def test_hosts_keep_what_they_have(lab: Lab, case: str, tmp_path: Path) -> None:
    replace_by, text = CASES[case]
    snapshot, right = tmp_path / "snapshot.db", tmp_path / "right.db"
    shutil.copy(lab.daemons.dir / "state" / "pool.db", snapshot)
    with client(lab) as asked:
        asked.put_vif("new/0", api.VifSpec(network="vx"))
    newest = revision(lab)
    for host in HOSTS:
        wait_until(lambda host=host: followed(lab, host) == newest, "the host has seen it")  # type: ignore[misc]
    with nothing_lost(lab):
        file = stop_database(lab)
        shutil.copy(file, right)
        replace_by(file, snapshot)
        lab.daemons.start_controller()
        refused(lab, text)
        with client(lab) as asked:
            events = [event for event in asked.events() if "not followed" in event.text]
            assert {event.host for event in events} == set(HOSTS)
            if case == "older":
                told = [problem.text for problem in asked.status().problems]
                assert all(
                    any(line.startswith(f"host {host}: the pool database is at") for line in told) for host in HOSTS
                )
                assert asked.status().live_hosts == 0
            if case == "empty":
                asked.apply(OTHER_POOL, wait_s=0)
                refused(lab, "and this host belongs to pool")
        for host in HOSTS:  # an agent that is new reads what the host belongs to
            lab.daemons.kill(host)
            lab.daemons.start_agent(host, lab.ovs(host))
        refused(lab, "this host")
        follow_again(lab, file, right)


async def test_a_pool_that_goes_under_a_running_server_takes_no_flow_with_it(lab: Lab) -> None:
    """As `ovsdb-client restore` and whoever reaches the database can do it."""
    database = PoolDatabase([f"unix:{lab.daemons.pool_socket}"])
    await database.open()
    try:
        before = {host: flows(lab, host) for host in HOSTS}
        await database.transact(*(Delete(table, ()) for table in ("Pool", "Host", "Network", "Vif", "Binding")))
        for host in HOSTS:
            await until(lambda host=host: "has no pool" in str(status(lab, host)["problems"]), "told")  # type: ignore[misc]
        assert {host: flows(lab, host) for host in HOSTS} == before
    finally:
        await database.close()


def test_a_host_that_leaves_its_pool_follows_what_it_is_pointed_at(lab: Lab) -> None:
    file = stop_database(lab)
    file.unlink()
    lab.daemons.start_controller()
    refused(lab, "has no pool")
    assert vif_flows(lab)
    with client(lab) as asked:
        asked.apply(OTHER_POOL, wait_s=0)
        for host in HOSTS:
            leave = ["host", "leave", "--yes", "--socket", str(lab.daemons.agent_socket(host))]
            done = subprocess.run(
                [sys.executable, "-m", "vnet.cli.main", *leave], capture_output=True, text=True, check=True
            )
            assert "left pool" in done.stdout + done.stderr
        for host in HOSTS:
            wait_until(lambda host=host: "pool" not in status(lab, host)["problems"], "it is followed")  # type: ignore[misc]
        wait_until(lambda: asked.status().live_hosts == 1, "the host that this pool has reports")
    wait_until(lambda: vif_flows(lab) == [], "the VIF's flows are gone")


@contextlib.contextmanager
def controller_at(lab: Lab, state: Path, log: Path) -> Iterator[None]:
    """A controller with this state directory, in the place of the lab's."""
    enter = ["nsenter", f"--net={NETNS_DIR / underlay_netns(lab.spec.name)}"]
    options = ["--run-dir", str(lab.daemons.dir), "--state-dir", str(state), "--cleartext"]
    listen = ["--pool-listen", f"ptcp:{POOL_PORT}:{CONTROLLER_ADDRESS}"]
    command = [*enter, sys.executable, "-m", "vnet.cli.main", "controller", *options, *listen]
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as made:
        try:
            yield
        finally:
            made.kill()


@contextlib.contextmanager
def read_only(state: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", state, state], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)
        yield
    finally:
        subprocess.run(["umount", state], check=True)


@contextlib.contextmanager
def corrupted(state: Path) -> Iterator[None]:
    file = state / "pool.db"
    right = file.read_bytes()
    middle = right.index(b'"near-vx')
    file.write_bytes(right[:middle] + b"?" + right[middle + 1 :])
    yield
    file.write_bytes(right)


@contextlib.contextmanager
def full(state: Path) -> Iterator[None]:
    """A small disk, of which nothing is left. What was written is taken along from it."""
    file = state / "pool.db"
    data = file.read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={len(data) + 65536}", "tmpfs", state], check=True)
    try:
        file.write_bytes(data)
        yield
        data = file.read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)
    file.write_bytes(data)


def write_till_full(lab: Lab) -> None:
    """Returns once a call is refused because the last block is full, too."""
    with client(lab) as asked, contextlib.suppress(NoRoom):
        for number in range(1000):
            asked.put_vif(f"more{number}/0", api.VifSpec(network="vx"))
        pytest.fail("the disk has room")


def test_a_server_that_answers_nothing_and_a_disk_that_is_of_no_use_cost_nothing(lab: Lab, tmp_path: Path) -> None:
    with nothing_lost(lab):
        server = int((lab.daemons.dir / "pool.pid").read_text())
        os.kill(server, signal.SIGSTOP)
        try:
            wait_until(lambda: not any(status(lab, host)["pool"] for host in HOSTS), "the hosts notice")
            lab.daemons.kill(A)  # an agent that is new has the host's own copy
            lab.daemons.start_agent(A, lab.ovs(A))
            wait_until(lambda: status(lab, A).get("copy"), "its own copy is what it runs on")
        finally:
            os.kill(server, signal.SIGCONT)
        wait_until(lambda: all(status(lab, host).get("pool") for host in HOSTS), "the hosts are back")

        state = stop_database(lab).parent
        for trouble, text in ((read_only, "Read-only file system"), (corrupted, "SHA-1")):
            log = tmp_path / f"{trouble.__name__}.log"
            with trouble(state), controller_at(lab, state, log):
                wait_until(lambda log=log, text=text: text in log.read_text(), text)  # type: ignore[misc]
        with controller_at(lab, tmp_path / "wrong", tmp_path / "wrong.log"):
            refused(lab, "has no pool")
        pid = int((lab.daemons.dir / "pool.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the wrong database has ended")
        with full(state):
            lab.daemons.start_controller()
            with contextlib.suppress(OSError), (state / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
            write_till_full(lab)
            stop_database(lab)
        lab.daemons.start_controller()
        wait_until(lambda: all(status(lab, host).get("pool") for host in HOSTS), "the hosts are back")
    with client(lab) as asked:
        asked.put_vif("new/0", api.VifSpec(network="vx"))
