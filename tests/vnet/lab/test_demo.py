"""The demo: what it shows is true, and it leaves nothing, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vnet.lab.test_lab import left_of
from vnet.lab import labs
from vnet.lab.demo import pick_migration, table
from vnet.lab.spec import Driver, Spec
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

pytestmark = pytest.mark.usefixtures("netns")
ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "topologies" / "quickstart.vnet.yaml"


def spec(name: str) -> Spec:
    return Spec.of(desired_state(load(QUICKSTART.read_bytes(), "quickstart"), PoolState()), name, Driver.NETNS)


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "vnet.cli.main", "lab", "demo", str(QUICKSTART), "--name", name]


def test_demo_shows_a_pool_at_work(lab_name: str) -> None:
    done = subprocess.run(command(lab_name), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "182 of 182 as networks and security groups say" in done.stdout
    assert "WRONG" not in done.stdout
    assert done.stdout.count("  ok ") == 10
    assert "0 doubled" in done.stdout
    assert done.stdout.count("put back within") == 2
    assert left_of(lab_name, spec(lab_name).namespaces()) == []


@pytest.mark.parametrize(
    ("seen", "number"),
    [(b"Starting", signal.SIGINT), (b"Reachability", signal.SIGTERM), (b"A live migration", signal.SIGINT)],
    ids=["starting", "measuring", "migrating"],
)
def test_interrupted_demo_leaves_nothing(lab_name: str, number: signal.Signals, seen: bytes) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # A shell that starts jobs in the background has them ignore SIGINT, and their children inherit that.
    interruptible = ["env", "--default-signal=INT", *command(lab_name)]
    with subprocess.Popen(interruptible, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        while seen not in demo.stdout.readline():
            assert demo.poll() is None
        demo.send_signal(number)
        demo.stdout.read()
    assert demo.returncode == 1
    assert left_of(lab_name, spec(lab_name).namespaces()) == []
    assert lab_name not in labs()


def test_migration_is_chosen_between_hosts_that_the_network_may_be_on() -> None:
    chosen = pick_migration(spec("x"))
    assert chosen is not None
    guest, vif, sender, to = chosen
    assert sender.network == vif.network
    assert len({guest.host, sender.host, to}) == 3


def test_table_columns_are_as_wide_as_their_cells() -> None:
    assert table(["A", "B"], [["long", "x"]]) == ["  A     B", "  long  x"]
