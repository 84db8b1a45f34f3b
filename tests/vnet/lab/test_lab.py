"""Labs on both drivers: what travels, what a cut does, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from tests.polling import wait_until
from tests.vnet.lab.pools import LACP, MTU, VXLAN_PORT, bridges, mac, mesh, pool
from vnet.lab import Driver, Lab, LabError, LabExists, LabUnsupported, NotInLab, labs, remove
from vnet.lab.names import NETNS_DIR, lab_dir, short, vif_device, vtep_prefix
from vnet.lab.processes import inside, marked

pytestmark = pytest.mark.usefixtures("netns")
Start = Callable[..., Lab]
BOTH = pytest.mark.parametrize("driver", list(Driver), ids=lambda driver: driver.value)
BROADCAST = "ff:ff:ff:ff:ff:ff"
ROOT = Path(__file__).parents[3]


def frame(source: int = 1, size: int = 100) -> bytes:
    header = Ether(src=mac(source), dst=BROADCAST) / IP(src=f"10.1.0.{source}", dst="10.1.0.255") / UDP(dport=9)
    return bytes(header / (b"x" * (size - len(header))))


def outside(size: int = 100) -> bytes:
    return bytes(Ether(src="0e:00:00:00:00:01", dst=BROADCAST, type=0x88B5) / (b"x" * (size - 14)))


def left_of(name: str, namespaces: list[str]) -> list[str]:
    """Whatever there still is of a lab."""
    files = [str(lab_dir(name))] if lab_dir(name).exists() else []
    nets = [netns for netns in namespaces if (NETNS_DIR / netns).exists()]
    return [*files, *nets, *map(str, marked(lab_dir(name))), *map(str, inside(namespaces))]


@BOTH
@pytest.mark.parametrize("family", [4, 6])
def test_frames_travel_between_hosts_once(start: Start, driver: Driver, family: int) -> None:
    lab = start(pool(family), driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)
    sent = frame()
    got = lab.send("vm1/0", sent)
    assert got.to == ["vm2/0", "vm3/0"]
    assert {item.frame for item in got} == {sent}
    assert lab.send("vif-2", [frame(2), frame(2)]).counts == {"vm1/0": 2, "vm3/0": 2}


@BOTH
def test_cut_host_is_alone_until_healed(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)
    lab.cut("xen2")
    assert lab.send("vm1/0", frame()).to == ["vm3/0"]
    assert lab.send("vm2/0", frame(2)).to == []
    lab.heal("xen2")
    # A kernel tells neighbours that it could not reach anew, and a frame waits for that.
    wait_until(lambda: lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"], "xen2 to be reached again")
    with pytest.raises(NotInLab, match="no link of xen2 'eth9' in this pool; did you mean 'eth1'"):
        lab.cut("xen2", "eth9")


@BOTH
def test_underlay_passes_its_mtu_and_no_more(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)
    fits = MTU - 50 + 14
    assert lab.send("vm1/0", frame(size=fits)).to == ["vm2/0", "vm3/0"]
    assert lab.send("vm1/0", frame(size=fits + 8)).to == []


@BOTH
def test_physical_switch_passes_tags_as_they_are(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    trunk, vlan, other = lab.station("trunk0"), lab.station("trunk0", 120), lab.station("trunk0", 121)
    plain = outside()
    tagged = plain[:12] + b"\x81\x00\x00\x78" + plain[12:]
    got = lab.send(vlan, plain)
    assert got.to == ["trunk0"]
    assert got[0].frame == tagged
    assert lab.send(trunk, tagged).at("trunk0.120") == [plain]
    assert lab.send(trunk, Ether(src="0e:00:00:00:00:01", dst=BROADCAST) / Dot1Q(vlan=121) / (b"x" * 46)).to == [
        "trunk0.121"
    ]
    assert lab.send(other, outside(MTU + 14)).to == ["trunk0"]
    assert lab.send(other, outside(MTU + 22)).to == []


@BOTH
def test_host_sees_the_physical_switch(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    station = lab.station("trunk0", 120)
    lab.send(station, outside())
    learned = lab.ovs("xen3").appctl("fdb/show", "br-trunk0")
    assert any(line.split()[1:3] == ["120", "0e:00:00:00:00:01"] for line in learned.splitlines())
    lab.cut("xen3", "eth1")
    lab.send(lab.station("trunk0", 7), outside())
    assert " 7 " not in lab.ovs("xen3").appctl("fdb/show", "br-trunk0")


@BOTH
def test_paused_guest_gets_it_when_it_resumes(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)
    lab.pause("vm2")
    assert lab.send("vm1/0", frame()).to == ["vm3/0"]
    with pytest.raises(LabError, match="paused"):
        lab.send("vm2/0", frame(2))
    lab.resume("vm2")
    # What waited comes to the guest at once, so no later send sees it.
    assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]


@BOTH
def test_guest_moves_between_two_frames(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    for host in ("xen1", "xen2"):
        lab.plug("vm1", host)
    lab.run("vm1", "xen1")
    lab.start("vm3")
    mesh(lab, "vm1", "vm3")
    to_vm1 = Ether(src=mac(3), dst=mac(1)) / IP(src="10.1.0.3", dst="10.1.0.1") / UDP(sport=9, dport=9)
    ovs = lab.ovs("xen2")
    port = ovs.vsctl("get", "interface", "vm1.0", "ofport").strip()
    ovs.ofctl("add-flow", "br-int", f"in_port={VXLAN_PORT},actions=output:{port}")
    with lab.stream("vm3/0", packet=to_vm1) as stream:
        wait_until(lambda: stream.progress().frames("vm1/0") > 50, "the stream at xen1")
        lab.run("vm1", "xen2", announce=True)
        moved = stream.progress().sent
        wait_until(lambda: stream.progress().sent > moved + 50, "the stream at xen2")
    # Every frame went to both hosts, so none is lost; xen2's port had kept those that the guest had got at xen1.
    assert stream.report.at("vm1/0").lost == 0
    assert stream.report.at("vm1/0").duplicated > 0
    assert lab.location("vm1") == "xen2"
    lab.stop("vm1")
    assert "vm1.0" not in ovs.vsctl("list-ports", "br-int").split()


@BOTH
@pytest.mark.parametrize("family", [4, 6])
def test_stream_counts_what_is_lost_and_what_waited(start: Start, driver: Driver, family: int) -> None:
    lab = start(pool(family), driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)

    def flowing(count: int) -> None:
        so_far = stream.progress().sent
        wait_until(lambda: stream.progress().sent > so_far + count, "frames of the stream")

    def at_vm3(number: int) -> bool:
        return stream.progress().latest("vm3/0") >= number

    # A dummy port keeps 100 frames, which at this period is a pause of a second.
    with lab.stream("vm1/0", "vm2/0", period_ms=10) as stream:
        flowing(50)
        lab.cut("xen2")
        first = stream.progress().sent
        flowing(50)
        last = stream.progress().sent - 1
        # xen1 sends each frame to xen2 before it does to xen3: what is here has met the cut.
        wait_until(lambda: at_vm3(last), "the last frame of the cut at xen3")
        lab.heal("xen2")
        lab.pause("vm2")
        flowing(20)
        lab.resume("vm2")
        lab.pause("vm1")
        paused = stream.progress().sent
        lab.pause("vm3")
        assert stream.progress().sent == paused
        lab.resume("vm1")
        flowing(50)
    report = stream.report
    behind_cut = report.at("vm2/0")
    assert behind_cut.frames + behind_cut.lost == len(report.sent)
    assert behind_cut.duplicated == 0
    # The cut's frames are lost, in one row; those of the pause only wait.
    assert set(range(first, last + 1)) <= set(behind_cut.lost_numbers)
    assert behind_cut.lost_numbers == tuple(range(behind_cut.lost_numbers[0], behind_cut.lost_numbers[-1] + 1))
    assert report.at("vm1/0").frames == 0


@BOTH
def test_hosts_and_vms_come_later(start: Start, driver: Driver) -> None:
    whole = pool()
    lab = start(pool(hosts=2), driver)
    lab.add_host(whole.hosts["xen3"])
    lab.add_vm("vm3", [whole.vifs["vif-3"]], "xen3")
    bridges(lab)
    lab.start_all()
    mesh(lab)
    assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]
    assert Lab.attach(lab.spec.name).spec == lab.spec
    lab.remove_vm("vm3")
    assert lab.send("vm1/0", frame()).to == ["vm2/0"]
    with pytest.raises(NotInLab):
        lab.start("vm3")
    lab.down()
    assert left_of(lab.spec.name, [*lab.spec.namespaces(), f"{lab.spec.name}-vm-vm3"]) == []


@BOTH
def test_crashed_host_boots_again(start: Start, driver: Driver) -> None:
    lab = start(pool(), driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)
    lab.crash_host("xen3")
    assert lab.send("vm1/0", frame()).to == ["vm2/0"]
    lab.boot_host("xen3")
    assert lab.ovs("xen3").vsctl("br-exists", "br-int") == ""


def test_vms_talk_through_their_kernels(start: Start) -> None:
    lab = start(pool())
    bridges(lab)
    lab.start_all()
    mesh(lab)
    assert " 0% packet loss" in lab.run_in_vm("vm1", "ping", "-c1", "-W5", "10.1.0.2")
    lab.pause("vm2")
    ping = lab.vm_argv("vm1", ["ping", "-c1", "-W1", "10.1.0.2"])
    assert subprocess.run(ping, stdout=subprocess.DEVNULL, check=False).returncode == 1


def test_lacp_is_negotiated_with_the_physical_switch(start: Start) -> None:
    lab = start(pool(uplink=LACP, hosts=2))
    bridges(lab)
    for host in ("xen1", "xen2"):
        wait_until(lambda host=host: "lacp_status: negotiated" in lab.ovs(host).appctl("bond/show", "bond"), "LACP")
    station = lab.station("trunk0", 120)

    def learned() -> bool:
        lab.send(station, outside())
        return all(" 120 " in lab.ovs(host).appctl("fdb/show", "br-trunk0") for host in ("xen1", "xen2"))

    wait_until(learned, "both hosts see the station through their bonds")


def test_vswitchd_restart_keeps_tunnels(start: Start) -> None:
    for driver in Driver:
        lab = start(pool(), driver)
        bridges(lab)
        lab.start_all()
        mesh(lab)
        lab.restart_vswitchd("xen3")
        assert lab.send("vm1/0", frame()).to == ["vm2/0"]  # no flows yet on xen3
        if driver is Driver.NETNS:
            mesh(lab)
            assert lab.send("vm3/0", frame(3)).to == ["vm1/0", "vm2/0"]


@BOTH
def test_two_labs_side_by_side_and_nothing_left(start: Start, driver: Driver) -> None:
    first, second = start(pool(), driver), start(pool(), driver)
    for lab in (first, second):
        bridges(lab)
        lab.start_all()
        mesh(lab)
    assert first.send("vm1/0", frame()).to == second.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]
    with pytest.raises(LabExists, match="--name"):
        Lab.up(pool(), name=first.spec.name, driver=driver)
    first.down()
    assert left_of(first.spec.name, first.spec.namespaces()) == []
    assert second.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]


def test_taken_namespace_is_refused_and_stays(start: Start, lab_name: str) -> None:
    other = f"{lab_name}-xen1"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        with pytest.raises(LabExists, match=other):
            Lab.up(pool(), name=lab_name)
        assert (NETNS_DIR / other).exists()
        assert not lab_dir(lab_name).exists()
    finally:
        subprocess.run(["ip", "netns", "del", other], check=True)


@BOTH
def test_lab_outlives_a_killed_caller_and_goes_down_whole(lab_name: str, driver: Driver) -> None:
    code = (
        "import sys, time\nfrom tests.vnet.lab.pools import pool\nfrom vnet.lab import Driver, Lab\n"
        "Lab.up(pool(), name=sys.argv[1], driver=Driver(sys.argv[2]))\nprint('up', flush=True)\ntime.sleep(600)"
    )
    args = [sys.executable, "-c", code, lab_name, driver.value]
    with subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        caller.send_signal(signal.SIGKILL)
    lab = Lab.attach(lab_name)
    assert lab.ovs("xen1").vsctl("list-br").split() == ["br-phy"]
    remove(lab_name)
    assert left_of(lab_name, lab.spec.namespaces()) == []
    assert lab_name not in labs()


@pytest.mark.parametrize("delay_s", [0.05, 0.1, 0.2, 0.3])
def test_caller_killed_half_way_leaves_what_down_finds(lab_name: str, delay_s: float) -> None:
    code = (
        "import os, sys, threading, time\nfrom tests.vnet.lab.pools import pool\nfrom vnet.lab import Lab\n"
        "threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), 9)).start()\n"
        "Lab.up(pool(), name=sys.argv[1])\ntime.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", code, lab_name, str(delay_s)], cwd=ROOT, check=False)
    namespaces = [f"{lab_name}-{part}" for part in ("underlay", "xen1", "xen2", "xen3", "vm-vm1", "vm-vm2", "vm-vm3")]
    if lab_name in labs():
        remove(lab_name)
    assert left_of(lab_name, namespaces) == []


def test_plain_user_runs_the_dummy_driver_and_is_told_about_the_other(lab_name: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tests.vnet.lab.pools import bridges, mesh, pool\nfrom tests.vnet.lab.test_lab import frame\n"
        "from vnet.lab import *\n"
        "try:\n Lab.up(pool(), name=sys.argv[1])\nexcept LabUnsupported as error:\n print(error)\n"
        "with Lab.up(pool(), name=sys.argv[1], driver=Driver.DUMMY) as lab:\n"
        " bridges(lab); lab.start_all(); mesh(lab); print(lab.send('vm1/0', frame()).to)"
    )
    args = ["unshare", "-U", sys.executable, "-c", code, lab_name]
    env = {**os.environ, "VNET_LAB_DIR": str(tmp_path / "labs")}
    done = subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    refusal, deliveries = done.stdout.splitlines()
    assert "sudo" in refusal
    assert deliveries == "['vm2/0', 'vm3/0']"


def test_a_folder_in_a_place_of_all_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may make it first, open it, or put a link there. As a plain user: root's labs are elsewhere."""
    monkeypatch.delenv("VNET_LAB_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    user, folder = 1234, tmp_path / "vnet-lab-1234"
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert labs() == []
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.chown(tmp_path / "elsewhere", user, user)
    folder.symlink_to(tmp_path / "elsewhere")
    os.chown(folder, user, user, follow_symlinks=False)
    with pytest.raises(LabUnsupported, match="closed to others"):
        labs()
    folder.unlink()
    folder.mkdir(mode=0o700)
    with pytest.raises(LabUnsupported, match="closed to others"):  # it is root's
        Lab.up(pool(), name="mine", driver=Driver.DUMMY)
    assert list(folder.iterdir()) == []
    os.chown(folder, user, user)
    assert lab_dir("mine") == folder / "mine"
    folder.chmod(0o711)
    with pytest.raises(LabUnsupported, match="closed to others"):
        lab_dir("mine")


@pytest.mark.parametrize("content", [None, "", "{}", '{"name": 1}'])
def test_damaged_lab_goes_down(lab_name: str, content: str | None) -> None:
    directory = lab_dir(lab_name)
    directory.mkdir(parents=True)
    if content is not None:
        (directory / "lab.json").write_text(content)
    assert lab_name in labs()
    remove(lab_name)
    assert lab_name not in labs()
    assert not directory.exists()


@pytest.mark.parametrize("name", ["", "a b", "-x", "../x", "x" * 33])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(LabError, match="no lab name"):
        Lab.up(pool(), name=name)


def test_dummy_vm_runs_no_commands(start: Start) -> None:
    with pytest.raises(LabUnsupported, match="netns"):
        start(pool(), Driver.DUMMY).run_in_vm("vm1", "true")


def test_names_fit_and_differ() -> None:
    assert vif_device("web1", 0) == "web1.0"
    long = [vif_device(f"a-virtual-machine-{i}", 10) for i in range(3)]
    assert len(set(long)) == 3
    assert max(map(len, long)) <= 15
    assert short("abc", 3) == "abc"
    assert vtep_prefix(["10.99.0.1", "10.99.0.3"], 4) == 24
    assert vtep_prefix(["10.99.0.1", "10.98.0.1"], 4) == 15
    assert vtep_prefix(["fd99::1", "fd99::2"], 6) == 64
