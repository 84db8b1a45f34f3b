"""The page in Debian's Chromium, of a controller with a lab: only where `make test-web` has installed both the browser and Playwright."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.labs import new_name
from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import Controller
from tests.web.pages import Site
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if os.environ.get("VNET_TEST_WEB") else True


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture(scope="session")
def lab(netns: None) -> Iterator[Lab]:
    document = (ROOT / "topologies" / "policy.vnet.yaml").read_bytes()
    pool = desired_state(load(document, "policy.vnet.yaml"), PoolState())
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as made:
        made.start_all()
        yield made


@pytest.fixture(scope="session")
def site(lab: Lab) -> Iterator[Site]:
    """A second controller of the lab's pool, at a port of loopback."""
    with run_dir() as path:
        port = free_port()
        listens = ("--listen", f"unix:{path}/run/controller.sock", "--listen", f"tcp:127.0.0.1:{port}")
        made = Controller(path, ("--pool", f"unix:{lab.daemons.pool_socket}", *listens))
        try:
            made.start()
            with made.client() as client:
                yield Site(f"http://127.0.0.1:{port}", client, lab)
        finally:
            made.stop(signal.SIGKILL)
