"""The helper itself: what it starts answers, and ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.servers import ovsdb_cluster, ovsdb_server, vswitchd


@pytest.mark.usefixtures("ovs")
def test_standalone_server_answers_and_restarts() -> None:
    with ovsdb_server() as server:
        assert server.client("list-dbs").split() == ["Open_vSwitch", "_Server"]
        server.restart()
        assert server.client("list-dbs").split() == ["Open_vSwitch", "_Server"]
    assert not server.dir.exists()


@pytest.mark.usefixtures("ovs")
def test_cluster_has_one_leader() -> None:
    with ovsdb_cluster() as cluster:
        assert len(cluster.followers()) == 2


@pytest.mark.usefixtures("ovs")
def test_vswitchd_configures_a_bridge() -> None:
    with vswitchd() as switch:
        switch.server.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy")
        assert "OF1.5" in switch.ofctl("show", "br0")


@pytest.mark.usefixtures("ovs")
def test_servers_end_when_their_owner_is_killed() -> None:
    code = (
        "import time\nfrom tests.servers import ovsdb_server\n"
        "with ovsdb_server() as s:\n print(s.process.pid, flush=True)\n time.sleep(600)"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, f"end of {pid}")
    assert os.getpid() != pid
