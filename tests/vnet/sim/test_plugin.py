"""The pytest plugin, in pytest runs of its own; and captures."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from tests.vnet.sim.pools import TWO_HOSTS, talk, two_hosts

TESTS = """
import pytest
from vnet.util.frames import ethernet

pytestmark = pytest.mark.vnet("two.vnet.yaml")
UNKNOWN = "02:00:00:00:00:77"


def frame(pool, mac=None):
    vif = pool.vif("free1/0")
    return ethernet(mac or pool.vif("free2/0").mac, vif.mac, 0x1234, b"hello")


def test_arrives(vnet_pool):
    got = vnet_pool.send("free1/0", frame(vnet_pool))
    assert got.to == ["free2/0"]
    assert got.at("free2/0") == [frame(vnet_pool)]


def test_fails(vnet_pool):
    assert vnet_pool.send("free1/0", frame(vnet_pool, UNKNOWN)).to == ["free2/0"]
"""


FAILED_CONVERSATION = """
import pytest

@pytest.mark.vnet("two.vnet.yaml")
def test_it(vnet_pool):
    assert vnet_pool.connect("web1/0", "db1/0").reached
    assert vnet_pool.connect("web1/0", "db1/1", udp=53).reached
"""
MODULE_POOL = """
import pytest

pytestmark = pytest.mark.vnet("two.vnet.yaml", scope="module")
POOLS = []

@pytest.mark.parametrize("number", range(3))
def test_one_pool(vnet_pool, number):
    POOLS.append(vnet_pool)
    assert POOLS == [POOLS[0]] * (number + 1)
    assert vnet_pool.connect("web1/0", "db1/0").reached

@pytest.mark.vnet("two.vnet.yaml")
def test_its_own(vnet_pool):
    assert vnet_pool is not POOLS[0]

@pytest.mark.vnet("two.vnet.yaml", scope="session")
def test_other_scope(vnet_pool):
    pass
"""


def run(directory: Path, *args: str, tests: str = TESTS) -> str:
    (directory / "two.vnet.yaml").write_bytes(TWO_HOSTS)
    (directory / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "vnet.pytest_plugin", "-p", "no:cacheprovider", *args]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=120).stdout


def test_simulated_pool_and_trace_of_a_failure(tmp_path: Path) -> None:
    out = run(tmp_path)
    assert "1 failed, 1 passed" in out
    assert "vnet trace" in out
    assert "58 UNKNOWN" in out
    assert "members of network gnv" in out


@pytest.mark.usefixtures("ovs")
def test_same_tests_on_real_open_vswitch(tmp_path: Path) -> None:
    out = run(tmp_path, "--vnet-on", "dummy")
    assert "1 failed, 1 passed" in out
    assert "vnet trace" in out


@pytest.mark.parametrize("engine", ["sim", pytest.param("dummy", marks=pytest.mark.ovs)])
def test_failed_conversation_prints_its_trace(tmp_path: Path, engine: str) -> None:
    out = run(tmp_path, "--vnet-on", engine, tests=FAILED_CONVERSATION)
    assert "1 failed" in out
    assert "<web1/0 to db1/1, udp 53, NOT reached: ARP from web1/0: " in out
    assert "vnet trace" in out
    assert "10 GUARD           priority" in out
    assert "web1/0 to db1/0, ping" not in out.partition("vnet trace")[2]


def test_pool_of_a_module(tmp_path: Path) -> None:
    out = run(tmp_path, tests=MODULE_POOL)
    assert "4 passed, 1 error" in out
    assert "scope is 'function' or 'module', not 'session'" in out


def test_missing_topology_is_reported(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("def test_it(vnet_pool): pass\n")
    out = run(tmp_path, "test_none.py")
    assert "no topology: say @pytest.mark.vnet" in out


def test_capture_has_an_interface_per_port() -> None:
    pool, file = two_hosts(), io.BytesIO()
    frame = talk(pool, "web1/0", "db1/0").frame()
    with pool.capture(file, start_us=1_700_000_000_000_000):
        pool.send("web1/0", frame)
    pool.send("web1/0", frame)
    file.seek(0)
    found = [(data, meta.ifname.decode(), meta.direction) for data, meta in RawPcapNgReader(file)]
    assert found == [
        (frame, "xen1 br-int web1/0", 1),
        (frame, "xen1 br-int vnet-vxlan", 2),
        (frame, "xen2 br-int vnet-vxlan", 1),
        (frame, "xen2 br-int db1/0", 2),
    ]


def test_connect_plays_both_ways() -> None:
    pool = two_hosts()
    assert pool.connect("web1/0", "db1/0", tcp=443).reached
    assert pool.connect("web1/0", "db1/0").reached
    assert not pool.connect("web1/0", "db1/1", udp=53).reached
