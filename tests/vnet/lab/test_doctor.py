"""`vnet doctor` on hosts of a lab: what is right, and each thing that is made wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.labs import new_name
from tests.vnet.lab.pools import MTU, pool
from vnet.cli.doctor import Diagnosis, _certificate, _offloads, _sockets, flags
from vnet.controller.pki import Authority, CertificateUse
from vnet.lab import Lab, links
from vnet.lab.names import NETNS_DIR, underlay_netns
from vnet.objects import Network, NetworkType, Vif, Vm
from vnet.util.transport import HOST, identity_file

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    made = pool(hosts=3)
    made.networks["prod"] = Network("prod", NetworkType.VLAN, 2, 1500, key=7, tag=7, uplink="trunk0")
    made.vms["vm9"] = Vm("vm9", "xen1")
    made.vifs["vif-9"] = Vif("vif-9", "prod", "0a:00:00:00:00:09", vm="vm9", addresses=("10.7.0.9",), host="xen1")
    with Lab.up(made, name=new_name(), daemons=True) as lab:
        lab.start_all()
        yield lab


def examined(lab: Lab, *options: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """The exit code on xen1, and finding, text and remedy by what was looked at. The clock is this machine's affair."""
    command = [sys.executable, "-m", "vnet.cli.main", "doctor", "-o", "json", *options]
    enter = ["nsenter", f"--net={NETNS_DIR / str(lab.host_netns('xen1'))}", "--"]
    socket = ["--socket", str(lab.daemons.agent_socket("xen1"))]
    done = subprocess.run(
        [*enter, *command, *socket], cwd=ROOT, env=lab.host_env("xen1"), capture_output=True, text=True, check=False
    )
    rows = json.loads(done.stdout) if done.stdout else []
    found = {row["subject"]: (row["finding"], row["text"], row["remedy"]) for row in rows if row["subject"] != "clock"}
    return done.returncode, found


def test_a_sound_host(lab: Lab) -> None:
    _, found = examined(lab)
    assert {finding for finding, *_ in found.values()} == {"ok"}, found
    assert found["path to xen2 (10.99.0.2)"][1] == f"{MTU} bytes pass unfragmented, both ways"
    assert found["agent"][1].endswith("host xen1")
    assert any(subject.startswith("pool database") for subject in found)


def tunnels(lab: Lab) -> dict[str, tuple[str, str]]:
    """Finding and text by tunnel, as any host with a controller has them."""
    command = [sys.executable, "-m", "vnet.cli.main", "doctor", "--tunnels", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, env=lab.daemons.env, capture_output=True, text=True, check=False)
    return {row["subject"]: (row["finding"], row["text"]) for row in json.loads(done.stdout)}


def test_a_tunnel_that_brings_nothing_one_way(lab: Lab) -> None:
    """A host drops what comes by a tunnel from one of the others, as a firewall does: pings pass all the while."""
    sound = tunnels(lab)
    assert {finding for finding, _ in sound.values()} == {"ok"}, sound
    assert len(sound) == 6, sound
    lab.ovs("xen2").ofctl("add-flow", "br-int", "table=0,priority=65535,tun_src=10.99.0.1,actions=drop")
    found = tunnels(lab)
    lab.ovs("xen2").ofctl("--strict", "del-flows", "br-int", "table=0,priority=65535,tun_src=10.99.0.1")
    wrong = [subject for subject, (finding, _) in found.items() if finding == "wrong"]
    assert [subject.partition(" (")[0] for subject in wrong] == ["tunnel xen1 to xen2"], found


def test_a_flow_of_somebody_else_on_an_uplinks_bridge(lab: Lab) -> None:
    bridge = "br-trunk0"
    lab.ovs("xen1").ofctl("add-flow", bridge, "priority=7,ip,actions=drop")
    code, found = examined(lab)
    lab.ovs("xen1").ofctl("--strict", "del-flows", bridge, "priority=7,ip")
    assert code == 1
    finding, text, _ = found[f"flows of {bridge}"]
    assert (finding, text.startswith("1 of others")) == ("wrong", True)


def test_offloads_sockets_and_certificates(tmp_path: Path) -> None:
    on = _offloads("eth0", {"lro": True, "gro": True, "tso": True})
    assert (on.finding, on.remedy.startswith("ethtool -K eth0 lro off")) == (Diagnosis.WRONG, True)
    assert _offloads("eth0", flags("lo")).finding is Diagnosis.OK  # the kernel answers
    assert flags("none0") is None
    for name, mode in (("good.sock", 0o660), ("bad.sock", 0o666)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    tmp_path.chmod(0o755)
    assert {Path(e.subject).name: e.finding for e in _sockets(tmp_path)} == {
        "bad.sock": Diagnosis.WRONG,
        "good.sock": Diagnosis.OK,
    }
    authority, now = Authority(tmp_path / "pki"), datetime.now(UTC)
    authority.create("test", now)
    for host, since, finding in (("xen1", 0, Diagnosis.OK), ("xen2", 6, Diagnosis.WRONG), ("xen3", 8, Diagnosis.WRONG)):
        begun = now - timedelta(days=since)
        authority.issue(host, CertificateUse.HOST, tmp_path / host, begun, life=timedelta(days=7, minutes=1))
        found = _certificate(identity_file(tmp_path / host, HOST))
        assert (found.finding, found.text) == (finding, f"ends in {7 - since} days" if since < 7 else "has ended")
    assert _certificate(tmp_path / "none.pem").finding is Diagnosis.WRONG


def test_a_peer_that_is_cut_off_and_one_behind_a_smaller_mtu(lab: Lab) -> None:
    lab.cut("xen2", "underlay")
    links.change(underlay_netns(lab.spec.name), lambda underlay: underlay.set("u2", mtu=1450))
    code, found = examined(lab)
    lab.heal("xen2", "underlay")
    links.change(underlay_netns(lab.spec.name), lambda underlay: underlay.set("u2", mtu=MTU))
    assert code == 1
    assert found["path to xen2 (10.99.0.2)"][:2] == ("wrong", "does not answer")
    finding, text, remedy = found["path to xen3 (10.99.0.3)"]
    passes = 1454 if lab.spec.datapath_type == "system" else 1450  # the kernel's lets a tag more through
    assert (finding, text) == ("wrong", f"{passes} bytes pass, and not the {MTU} of underlay.mtu")
    assert f"underlay: {{mtu: {passes}}}" in remedy


def test_what_the_agent_has_to_say(lab: Lab) -> None:
    lab.ovs("xen1").ofctl("add-flow", "br-int", "priority=65000,ip,actions=drop")
    lab.daemons.wait(lambda view: view.state.agents["xen1"].problems, "the agent tells")
    code, found = examined(lab)
    lab.ovs("xen1").ofctl("--strict", "del-flows", "br-int", "priority=65000,ip")
    assert code == 1
    assert any("not ours" in text for finding, text, _ in found.values() if finding == "wrong")


def test_no_agent_is_one_line(lab: Lab) -> None:
    lab.daemons.kill("xen1")
    code, found = examined(lab)
    lab.daemons.start_agent("xen1", lab.ovs("xen1"))
    assert (code, list(found), found["agent"][2]) == (
        1, ["agent"], "is vnet-agent running? 'systemctl status vnet-agent'"
    )  # fmt: skip
