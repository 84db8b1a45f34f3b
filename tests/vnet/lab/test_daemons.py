"""Labs with the pool's own daemons: controller, database, an agent per host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import pool
from tests.vnet.lab.test_lab import BOTH, frame, left_of
from vnet.cli.main import run
from vnet.client import Client, Unit
from vnet.lab import Driver, Lab, LabError, LabUnsupported, labs, toolstack
from vnet.lab.names import MARK
from vnet.lab.preload import Preloaded
from vnet.lab.processes import alive, marked, stop
from vnet.lab.status import status

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", params=list(Driver), ids=lambda driver: driver.value)
def lab(netns: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab whose VMs run; what a test changes it puts back."""
    with Lab.up(pool(), name=new_name(), driver=request.param, daemons=True) as lab:
        lab.start_all()
        yield lab


def flowing(lab: Lab, during: Callable[[], object]) -> int:
    """Frames lost from vm1 to vm2 while something happens, and 50 ms before and after."""
    with lab.stream("vm1/0", "vm2/0") as stream:
        for step in (lambda: None, during):
            step()
            sent = stream.progress().sent
            wait_until(lambda sent=sent: stream.progress().sent > sent + 50, "frames of the stream")
    got = stream.report.at("vm2/0")
    assert got.duplicated == 0
    return got.lost


def test_each_daemon_is_a_process_of_its_own_on_its_host(lab: Lab) -> None:
    daemons = {host: lab.daemons.pid(host) for host in ("xen1", "xen2", "xen3")}
    for host, pid in daemons.items():
        assert pid in marked(lab.spec.dir)
        assert (os.getsid(pid), os.readlink(f"/proc/{pid}/cwd")) == (pid, "/")
        switch = lab.ovs(host).pid("ovs-vswitchd")
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{switch}/ns/net")
        assert f'"host": "{host}"' in lab.daemons.log(host).read_text()
    assert lab.spec.driver is Driver.DUMMY or len({os.readlink(f"/proc/{pid}/ns/net") for pid in daemons.values()}) == 3


@pytest.mark.usefixtures("ovs")
def test_a_forked_daemon_has_its_mark_once_it_is_known(tmp_path: Path) -> None:
    own = ["--ovs-rundir", str(tmp_path), "--socket", str(tmp_path / "agent.sock"), "--state-dir", ""]
    preloaded, args = Preloaded(), ["agent", "--host", "xen1", "--ovs-db", f"unix:{tmp_path}/no.sock", *own]
    for _ in range(20):
        pid = preloaded.start(args, env={MARK: str(tmp_path)}, log=tmp_path / "log", netns=None)
        found = marked(tmp_path)
        stop([pid])
        assert found == [pid], (tmp_path / "log").read_text()


def test_frames_reach_the_others_once(lab: Lab) -> None:
    assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]
    assert lab.send("vm3/0", frame(3)).to == ["vm1/0", "vm2/0"]


def test_agents_and_controller_restart_without_loss(lab: Lab) -> None:
    def restart() -> None:
        for host in ("xen1", "xen2"):
            lab.restart_agent(host)
        lab.restart_controller()

    assert flowing(lab, restart) == 0
    lab.wait_ready()


def test_vm_stops_and_starts_elsewhere(lab: Lab) -> None:
    lab.stop("vm3")
    assert lab.send("vm1/0", frame()).to == ["vm2/0"]
    with pytest.raises(LabError, match="not plugged"):
        lab.send("vm3/0", frame(3))
    lab.start("vm3")
    lab.wait_ready("vm3")
    assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]


def test_host_cut_off_from_the_database_still_forwards(lab: Lab) -> None:
    if lab.spec.driver is Driver.DUMMY:
        with pytest.raises(LabUnsupported, match="netns"):
            lab.cut("xen2", "database")
        return
    assert flowing(lab, lambda: lab.cut("xen2", "database")) == 0
    ping = lab.host_argv("xen2", ["ping", "-c1", "-W1", "198.18.0.1"])
    assert subprocess.run(ping, stdout=subprocess.DEVNULL, check=False).returncode == 1
    lab.heal("xen2", "database")
    wait_until(lambda: subprocess.run(ping, stdout=subprocess.DEVNULL, check=False).returncode == 0, "xen2 reaches it")


def test_status_tells_all_that_a_program_needs(lab: Lab) -> None:
    found = json.loads(json.dumps(status(lab)))
    assert found["name"] == lab.spec.name
    for host in found["hosts"].values():
        assert all(Path(socket).is_socket() for socket in host["sockets"].values())
        assert all(alive(pid) for pid in host["processes"].values())
        assert {"ovsdb-server", "ovs-vswitchd", "agent"} == host["processes"].keys()
    assert Path(found["pool"]).is_socket()
    nic = found["vms"]["vm2"]["interfaces"]["eth0"]
    assert (nic["mac"], nic["addresses"], nic["mtu"]) == ("0a:00:00:00:00:02", ["10.1.0.2/24"], 1550)
    assert (found["vms"]["vm2"]["host"], found["vms"]["vm2"]["paused"]) == ("xen2", False)


def test_stopped_agent_runs_on(lab: Lab) -> None:
    lab.daemons.signal("xen1", signal.SIGSTOP)
    try:
        assert flowing(lab, lambda: None) == 0
    finally:
        lab.daemons.signal("xen1", signal.SIGCONT)


@pytest.mark.usefixtures("netns")
@BOTH
def test_nothing_is_left_of_daemons(driver: Driver) -> None:
    lab = Lab.up(pool(hosts=1), name=new_name(), driver=driver, daemons=True)
    lab.down()
    assert left_of(lab.spec.name, lab.spec.namespaces()) == []


def test_command_line_runs_commands_in_vms_and_on_hosts(lab: Lab) -> None:
    def vnet(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vnet.cli.main", "lab", *args]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    name = lab.spec.name
    script = "ovs-vsctl list-br; ovs-ofctl dump-tables br-phy; ovs-appctl dpif/show; exit 7"
    done = vnet("host", "--name", name, "xen1", "--", "sh", "-c", script)
    assert done.returncode == 7
    assert all(text in done.stdout for text in ("br-trunk0", "OFPST_TABLE", "vm1.0"))
    done = vnet("exec", "--name", name, "vm1", "--", "cat", "/proc/net/dev")
    if lab.spec.driver is Driver.NETNS:
        assert "eth0:" in done.stdout
    else:
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_command_line_shows_and_pauses(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def vnet(*args: str) -> str:
        assert run(["lab", *args]) == 0
        return capsys.readouterr().out

    name = lab.spec.name
    assert json.loads(vnet("status", "--name", name, "-o", "json"))["name"] == name
    assert vnet("status", "--name", name).startswith(f"lab {name} ")
    assert name in vnet("list").split()
    assert name in json.loads(vnet("list", "-o", "json"))
    vnet("pause", "--name", name, "vm2")
    assert "paused on xen2" in vnet("status", "--name", name)
    assert lab.send("vm1/0", frame()).to == ["vm3/0"]
    vnet("resume", "--name", name, "vm2")
    assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]


def test_command_line_refuses_in_one_line(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for args, says in (
        (["pause", "--name", lab.spec.name, "vm9"], "no VM 'vm9' in this pool; did you mean 'vm1'?"),
        (["host", "--name", lab.spec.name, "xen9", "true"], "no host 'xen9' in this pool; did you mean 'xen1'?"),
        (["down", "--name", "nosuch"], "vnet lab list"),
    ):
        assert run(["lab", *args]) == 1
        message = capsys.readouterr().err
        assert says in message
        assert message.count("\n") == 1


def test_command_line_brings_up_and_down(lab_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "topologies" / "gre-private.vnet.yaml"
    assert run(["lab", "up", str(file), "--name", lab_name, "--driver", "dummy"]) == 0
    assert run(["lab", "up", str(file), "--name", lab_name]) == 1
    assert "--name" in capsys.readouterr().err
    with Lab.attach(lab_name).stream("render2/0", "queue1/0") as stream:
        wait_until(lambda: stream.progress().sent > 50, "frames of the stream")
    assert stream.report.at("queue1/0").lost == 0
    assert run(["lab", "down", "--name", lab_name]) == 0
    assert lab_name not in labs()


@pytest.mark.parametrize("how", [{}, {"pause_s": 0.1}, {"announce": False}], ids=["announced", "paused", "silent"])
def test_vm_migrates_as_a_toolstack_drives_it(lab: Lab, how: dict[str, Any]) -> None:
    for to in ("xen2", "xen3"):
        with lab.stream("vm1/0", "vm3/0") as stream:
            lab.migrate("vm3", to, **how)
            sent = stream.progress().sent
            wait_until(lambda sent=sent: stream.progress().sent > sent + 50, "frames at the destination")
        got = stream.report.at("vm3/0")
        assert lab.location("vm3") == to
        assert got.duplicated == 0
        assert len(stream.report.sent) - 1 not in got.lost_numbers
        assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]
        assert lab.send("vm3/0", frame(3)).to == ["vm1/0", "vm2/0"]


@pytest.mark.parametrize("lab", [Driver.DUMMY], indirect=True)
@pytest.mark.parametrize("how", [{}, {"pause_s": 0.01}], ids=["announced", "paused"])
def test_a_destination_that_lags_gives_a_guest_nothing_twice(
    lab: Lab, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its switch stands still while the guest, at its source, gets frames whose other copies wait at the destination."""
    switch, wait_phase = lab.ovs("xen2").pid("ovs-vswitchd"), toolstack._wait_phase

    def lagging(client: Client, unit: Unit, phase: str) -> None:
        wait_phase(client, unit, phase)
        if phase == "prepared":
            os.kill(switch, signal.SIGSTOP)
            sent = stream.progress().sent
            wait_until(lambda: stream.progress().latest("vm3/0") > sent + 50, "frames at the source")
            Timer(0.1, os.kill, (switch, signal.SIGCONT)).start()

    monkeypatch.setattr(toolstack, "_wait_phase", lagging)
    with lab.stream("vm1/0", "vm3/0") as stream:
        lab.migrate("vm3", "xen2", **how)
    monkeypatch.undo()
    assert stream.report.at("vm3/0").duplicated == 0
    lab.migrate("vm3", "xen3")
