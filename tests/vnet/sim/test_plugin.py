"""The pytest plugin, in pytest runs of its own; and captures."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
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
def test_conversation(vnet_pool):
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
NO_TOPOLOGY = "def test_it(vnet_pool): pass\n"


@dataclass
class Run:
    """A run of pytest: outcomes by file, and what is printed of each test that failed, by its name."""

    outcomes: dict[str, list[str]]
    failures: dict[str, str]


def run(directory: Path, engine: str, **files: str) -> Run:
    """One run of all the files, as each would take most of its time to start."""
    (directory / "two.vnet.yaml").write_bytes(TWO_HOSTS)
    for name, tests in files.items():
        (directory / f"test_{name}.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "vnet.pytest_plugin", "-p", "no:cacheprovider", "-rA"]
    command += ["--vnet-on", engine]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    out = subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=120
    ).stdout
    outcomes: dict[str, list[str]] = {name: [] for name in files}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) test_(\w+)\.py::", out, re.M):
        outcomes[name].append(outcome)
    _, *parts = re.split(r"^_+ (?:ERROR at setup of )?(test_\w+) _+$", out, flags=re.M)
    return Run(outcomes, dict(zip(parts[::2], parts[1::2], strict=True)))


@pytest.fixture(scope="module")
def on_sim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(
        tmp_path_factory.mktemp("sim"), "sim",
        arrivals=TESTS, conversation=FAILED_CONVERSATION, module=MODULE_POOL, no_topology=NO_TOPOLOGY,
    )  # fmt: skip


@pytest.fixture(scope="module")
def on_dummy(ovs: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("dummy"), "dummy", arrivals=TESTS, conversation=FAILED_CONVERSATION)


def test_simulated_pool_and_trace_of_a_failure(on_sim: Run) -> None:
    assert on_sim.outcomes["arrivals"] == ["PASSED", "FAILED"]
    failure = on_sim.failures["test_fails"]
    assert "vnet trace" in failure
    assert "58 UNKNOWN" in failure
    assert "members of network gnv" in failure


def test_same_tests_on_real_open_vswitch(on_dummy: Run) -> None:
    assert on_dummy.outcomes["arrivals"] == ["PASSED", "FAILED"]
    assert "vnet trace" in on_dummy.failures["test_fails"]


@pytest.mark.parametrize("made", ["on_sim", pytest.param("on_dummy", marks=pytest.mark.ovs)])
def test_failed_conversation_prints_its_trace(made: str, request: pytest.FixtureRequest) -> None:
    found: Run = request.getfixturevalue(made)
    assert found.outcomes["conversation"] == ["FAILED"]
    failure = found.failures["test_conversation"]
    assert "<web1/0 to db1/1, udp 53, NOT reached: ARP from web1/0: " in failure
    assert "vnet trace" in failure
    assert "10 GUARD           priority" in failure
    assert "web1/0 to db1/0, ping" not in failure.partition("vnet trace")[2]


def test_pool_of_a_module(on_sim: Run) -> None:
    assert on_sim.outcomes["module"] == ["PASSED"] * 4 + ["ERROR"]
    assert "scope is 'function' or 'module', not 'session'" in on_sim.failures["test_other_scope"]


def test_missing_topology_is_reported(on_sim: Run) -> None:
    assert on_sim.outcomes["no_topology"] == ["ERROR"]
    assert "no topology: say @pytest.mark.vnet" in on_sim.failures["test_it"]


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
