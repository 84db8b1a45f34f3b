"""A real controller with callers who show no token: they cost nobody else an answer, and little of the log."""

from __future__ import annotations

import resource
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import stop_embedded
from vnet.client import Client

pytestmark = pytest.mark.usefixtures("ovs")

TOKEN = "correct-horse-battery-staple"
DESCRIPTORS = 1024  # a service's limit where its unit names none


@pytest.mark.usefixtures("many_descriptors")
def test_1100_silent_strangers_cost_nobody_an_answer_and_little_of_the_log(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    port = free_port()
    with run_dir() as path, ExitStack() as stack:
        made = Controller(
            path,
            ("--listen", f"unix:{path}/api.sock", "--listen", f"tcp:127.0.0.1:{port}", "--token-file", str(token_file)),
        )
        try:
            made.launch()
            wait_until(lambda: "controller serves on" in made.log.read_text(), "the controller")
            assert made.process is not None
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.prlimit(made.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, most))
            for _ in range(1100):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with Client(f"unix:{path}/api.sock") as local, Client(f"http://127.0.0.1:{port}", token=TOKEN) as client:
                assert local.status().hosts == 0
                assert client.status().hosts == 0
            assert made.log.stat().st_size < 10_000
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)
