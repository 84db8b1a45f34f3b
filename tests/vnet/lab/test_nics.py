"""NICs of a host that an agent must leave alone, or that are not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.lab.pools import pool
from tests.vnet.lab.test_lab import frame
from vnet.lab import Lab
from vnet.lab.names import CONTROLLER_ADDRESS, NETNS_DIR
from vnet.objects import Network, NetworkType

ROOT = Path(__file__).parents[3]
PROD = Network("prod", NetworkType.VLAN, 2, 1500, key=100, tag=120, uplink="trunk0")


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    """One host, xen1, with NIC eth1 in uplink trunk0, and one VM on a VLAN there."""
    plain = pool(hosts=1)
    vifs = {name: replace(vif, network="prod") for name, vif in plain.vifs.items()}
    with Lab.up(replace(plain, networks={"prod": PROD}, vifs=vifs), name=new_name(), daemons=True) as lab:
        lab.start_all()
        lab.station("trunk0", 120)
        yield lab


def without_bridge(lab: Lab, *command: str) -> None:
    """Run a command on the host while there is no agent and no uplink bridge, as before the first start."""
    lab.daemons.kill("xen1")
    lab.ovs("xen1").vsctl("--if-exists", "del-br", "br-trunk0")
    lab.run_on_host("xen1", *command)
    lab.daemons.start_agent("xen1", lab.ovs("xen1"))


def ports(lab: Lab) -> list[str]:
    return lab.ovs("xen1").vsctl("list-ports", "br-trunk0").split()


def wait_problem(lab: Lab, text: str) -> str:
    """Wait until the agent tells of it; what `vnet status` says then."""
    lab.daemons.wait(lambda view: text in view.state.agents["xen1"].problems.get("interface eth1", ""), text)
    command = [sys.executable, "-m", "vnet.cli.main", "status"]
    return subprocess.run(
        command, cwd=ROOT, env=lab.host_env("xen1"), capture_output=True, text=True, check=True
    ).stdout


def wait_healed(lab: Lab) -> None:
    lab.daemons.wait(lambda view: not view.state.agents["xen1"].problems, "no problem any more")
    wait_until(lambda: lab.send("vm1/0", frame()).to == ["trunk0.120"], "the uplink carries frames")


@pytest.mark.parametrize(
    ("address", "route"),
    [("10.0.0.5/24", ""), ("fd05::5/64", ""), ("10.0.0.5/24", "10.0.0.1")],
    ids=["ipv4", "ipv6", "default-route"],
)
def test_nic_that_the_host_uses_is_left_alone_until_it_does_not(lab: Lab, address: str, route: str) -> None:
    script = f"sysctl -qw net.ipv6.conf.eth1.disable_ipv6=0; ip link set eth1 up; ip addr add {address} dev eth1 {{}}"
    script = script.format("nodad" if ":" in address else "")
    without_bridge(lab, "sh", "-ec", script + (f"; ip route add default via {route}" if route else ""))
    said = wait_problem(lab, f"NIC eth1 carries {address}")
    assert f"host xen1: interface eth1: NIC eth1 carries {address}" in said
    assert ("the default route" in said) == bool(route)
    assert "to br-trunk0 first" in said
    assert ports(lab) == ["phy-trunk0"]
    assert lab.send("vm1/0", frame()).to == []
    assert address in lab.run_on_host("xen1", "ip", "addr", "show", "dev", "eth1")
    lab.run_on_host("xen1", "ip", "addr", "del", address, "dev", "eth1")
    wait_healed(lab)
    assert ports(lab) == ["eth1", "phy-trunk0"]


def test_address_that_comes_later_takes_no_nic_away(lab: Lab) -> None:
    lab.run_on_host("xen1", "ip", "addr", "add", "10.0.0.6/24", "dev", "eth1")
    try:
        lab.restart_agent("xen1")
        lab.daemons.settle()
        wait_healed(lab)
        assert ports(lab) == ["eth1", "phy-trunk0"]
    finally:
        lab.run_on_host("xen1", "ip", "addr", "del", "10.0.0.6/24", "dev", "eth1")


def test_nic_that_is_not_there_is_told_and_taken_when_it_appears(lab: Lab) -> None:
    without_bridge(lab, "sh", "-ec", "ip link set eth1 down; ip link set eth1 name away")
    said = wait_problem(lab, "this host has no NIC eth1")
    assert "host xen1: interface eth1: this host has no NIC eth1, so br-trunk0 is without it until it appears" in said
    lab.run_on_host("xen1", "ip", "link", "set", "away", "name", "eth1")
    assert "host xen1: interface eth1: NIC eth1 is down" in wait_problem(lab, "NIC eth1 is down")
    lab.run_on_host("xen1", "ip", "link", "set", "eth1", "up")
    wait_healed(lab)


def adopt(lab: Lab, *options: str) -> subprocess.CompletedProcess[str]:
    """`vnet host adopt-nic` for the NIC by which xen1 reaches the controller's machine, in a pool without a gateway."""
    command = [sys.executable, "-m", "vnet.cli.main", "host", "adopt-nic", "lab-mgmt", "--bridge", "br-host", *options]
    enter = ["nsenter", f"--net={NETNS_DIR / str(lab.host_netns('xen1'))}", "--"]
    return subprocess.run(
        [*enter, *command], cwd=ROOT, env=lab.host_env("xen1"), capture_output=True, text=True, check=False
    )


def carries(lab: Lab, device: str) -> list[str]:
    """The addresses and routes of one of xen1's devices."""
    found: list[str] = []
    for what in ("address", "route"):
        said = lab.run_on_host("xen1", "ip", "-4", what, "show", "dev", device)
        found += [line.strip() for line in said.splitlines() if "inet" in line or "via" in line]
    return [line.replace(device, "DEV") for line in found]


def test_a_nic_with_the_hosts_address_is_adopted_and_given_back(lab: Lab) -> None:
    lab.run_on_host("xen1", "ip", "route", "add", "198.51.100.0/24", "via", CONTROLLER_ADDRESS, "dev", "lab-mgmt")
    lab.run_on_host("xen1", "ip", "address", "add", "10.77.0.1/24", "dev", "lab-mgmt")
    before, ovs = carries(lab, "lab-mgmt"), lab.ovs("xen1")

    refused = adopt(lab, "--yes", "--check", "10.77.0.9")
    assert refused.returncode == 1
    assert "10.77.0.9 does not answer now" in refused.stderr
    assert adopt(lab, "--dry-run").stdout.splitlines()[1:3] == [
        "ip address flush dev lab-mgmt",
        "ip link set dev br-host up",
    ]
    assert carries(lab, "lab-mgmt") == before

    done = adopt(lab, "--yes")
    assert "uplinks: {NAME: {bridge: br-host}}" in done.stderr, done.stderr
    assert (carries(lab, "br-host"), carries(lab, "lab-mgmt")) == (before, [])
    assert ovs.vsctl("list-ports", "br-host").split() == ["lab-mgmt"]
    lab.run_on_host("xen1", "ping", "-n", "-c", "1", "-W", "5", CONTROLLER_ADDRESS)
    assert "already" in adopt(lab, "--yes").stderr

    assert adopt(lab, "--yes", "--undo").returncode == 0
    assert carries(lab, "lab-mgmt") == before
    assert "br-host" not in ovs.vsctl("list-br")


def test_a_nic_is_taken_back_if_the_host_is_not_reached(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bridge is made by an ovs-vsctl that forgets the NIC."""
    before = carries(lab, "lab-mgmt")
    real = shutil.which("ovs-vsctl")
    (tmp_path / "ovs-vsctl").write_text(
        f'#!/bin/sh\nset -- "$@"\ncase "$*" in *add-br*) exec {real} add-br br-host -- set bridge br-host datapath_type=netdev;; esac\nexec {real} "$@"\n'
    )
    (tmp_path / "ovs-vsctl").chmod(0o755)
    monkeypatch.setitem(os.environ, "PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = adopt(lab, "--yes", "--check", CONTROLLER_ADDRESS)
    assert (done.returncode, "taken back" in done.stderr) == (1, True), done.stderr
    assert carries(lab, "lab-mgmt") == before
    assert "br-host" not in lab.ovs("xen1").vsctl("list-br")


def test_a_nic_that_is_given_back_stays_adopted_if_the_host_is_not_reached(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing answers after the first question."""
    assert adopt(lab, "--yes", "--check", CONTROLLER_ADDRESS).returncode == 0
    before = carries(lab, "br-host")
    (tmp_path / "ping").write_text(f"#!/bin/sh\nmkdir {tmp_path}/asked\n")  # which it can once
    (tmp_path / "ping").chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setitem(os.environ, "PATH", f"{tmp_path}:{os.environ['PATH']}")
        done = adopt(lab, "--yes", "--undo", "--check", CONTROLLER_ADDRESS)
    assert (done.returncode, "taken back" in done.stderr) == (1, True), done.stderr
    assert (carries(lab, "br-host"), carries(lab, "lab-mgmt")) == (before, [])
    assert lab.ovs("xen1").vsctl("list-ports", "br-host").split() == ["lab-mgmt"]
    assert adopt(lab, "--yes", "--undo", "--check", CONTROLLER_ADDRESS).returncode == 0
