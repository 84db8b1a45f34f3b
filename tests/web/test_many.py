"""The page of a pool with 1,000 VIFs: an event costs what it changes, and the map moves. What it takes is printed, with `-s`; docs/web.md has the figures."""

from __future__ import annotations

import asyncio
import itertools
import signal
import statistics
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import FakeAgent, opened, stop_embedded
from tests.web.pages import Site, picture
from tests.web.test_page import node, wait
from vnet import api
from vnet.client import AsyncClient

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTS, NETWORKS, VMS = 12, 8, 1000
# Pans and zooms for 60 frames; the milliseconds of each.
FRAMES = """async () => {
  const taken = [];
  let before = performance.now();
  for (let n = 0; n < 60; n += 1) {
    vnetMap.panBy({ x: n % 20 < 10 ? 8 : -8, y: 4 });
    if (n % 10 === 5) vnetMap.zoom(vnetMap.zoom() * (n % 20 === 5 ? 1.1 : 1 / 1.1));
    await new Promise(requestAnimationFrame);
    taken.push(performance.now() - before);
    before = performance.now();
  }
  return taken;
}"""


def document() -> str:
    lines = ["apiVersion: vnet/v1", "pool: large", "underlay: {mtu: 1600}", "hosts:"]
    lines += [f"  xen{n}: {{address: 10.99.0.{n + 1}}}" for n in range(HOSTS)]
    lines += ["networks:", *(f"  net{n}: {{type: vxlan}}" for n in range(NETWORKS)), "vms:"]
    lines += [f"  vm{n:04}: {{vifs: [{{network: net{n % NETWORKS}}}]}}" for n in range(VMS)]
    return "\n".join(lines)


def beside(job: Coroutine[Any, Any, None]) -> None:
    """Run to its end in a thread of its own: Playwright has this one's loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, job).result()


async def plug_all(made: Controller) -> None:
    async with opened(made.database.remote) as pool:
        agents = [FakeAgent(pool, f"xen{n}") for n in range(HOSTS)]
        for agent in agents:
            await agent.beat(generation=1)
        for n, agent in zip(range(VMS), itertools.cycle(agents)):
            await agent.claim(f"vm{n:04}/0")


async def begin_move(made: Controller) -> None:
    """A VIF begins to move."""
    async with opened(made.database.remote) as pool, AsyncClient(made.address) as client:
        for host in ("xen0", "xen5"):
            await FakeAgent(pool, host).beat(generation=1)
        await client.prepare(api.Unit.of_vm("vm0000"), "xen5")


@pytest.fixture(scope="module")
def large(ovs: None) -> Iterator[tuple[Controller, Site]]:
    port = free_port()
    with run_dir() as path:
        made = Controller(path, ("--listen", f"unix:{path}/run/controller.sock", "--listen", f"tcp:127.0.0.1:{port}"))
        try:
            made.start()
            with made.client() as client:
                client.apply(document().encode(), "large.vnet.yaml", wait_s=0)
                beside(plug_all(made))
                yield made, Site(f"http://127.0.0.1:{port}", client)
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


def test_a_map_of_1000_vifs(browser: Browser, large: tuple[Controller, Site]) -> None:
    made, site = large
    with site.open(browser) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(site.url)))
        began = time.monotonic()
        site.go(page, "map")
        wait(page, lambda: node(page, "vm vm0999") is not None, "the map")
        print(f"\nthe map of {VMS} VIFs stands after {time.monotonic() - began:.2f} s")
        taken = page.evaluate(FRAMES)
        print(f"a frame takes {statistics.median(taken):.1f} ms in the middle, {max(taken):.1f} ms at most")
        page.get_by_role("button", name="Fit").click()
        picture(page, "web-map-1000")
        asked.clear()
        beside(begin_move(made))
        wait(page, lambda: node(page, "move vm0000") is not None, "the one VIF that moves")
        lists = [url for url in asked if url in ("/v1/vifs", "/v1/networks")]
        assert lists == [], "what one VIF does asks for that VIF"
        began = time.monotonic()
        site.go(page, "list/vifs")
        page.get_by_role("status").get_by_text(f"{VMS} in all").wait_for()
        page.get_by_label("Search").fill("vm0123")
        page.get_by_role("status").get_by_text(f"1 of {VMS}").wait_for()
        print(f"a list of {VMS} VIFs, and one found in it, after {time.monotonic() - began:.2f} s")


def test_the_twin_of_1000_vifs_holds_nobody_up(large: tuple[Controller, Site]) -> None:
    """Others are answered while the twin is made and asked."""
    _, site = large
    token = site.token("viewer")
    headers = {"Authorization": f"Bearer {token}"}
    took: list[float] = []

    def ask() -> None:
        for _ in range(2):
            began = time.monotonic()
            answer = httpx.post(
                f"{site.url}/v1/trace", headers=headers, json={"source": "vm0001", "target": "vm0009"}, timeout=120
            )
            assert answer.status_code == 200, answer.text
            took.append(time.monotonic() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    others = []
    while asking.is_alive():
        began = time.monotonic()
        assert httpx.get(f"{site.url}/v1/pool", headers=headers).status_code == 200
        others.append(time.monotonic() - began)
    asking.join()
    assert len(took) == 2
    print(
        f"\na trace takes {took[0]:.2f} s where the twin is made, {took[1]:.2f} s after; meanwhile another call {statistics.median(others) * 1000:.0f} ms, {max(others) * 1000:.0f} ms at most, of {len(others)}"
    )
    assert len(others) > 3, "others are answered meanwhile"
