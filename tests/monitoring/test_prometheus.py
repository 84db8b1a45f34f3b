"""A real Prometheus reads a real agent and a real controller, and promtool tries the alert rules: `make test-monitoring`."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable
from pathlib import Path

import httpx
import pytest

from tests.polling import until
from tests.servers import end, free_port, run_dir, spawn
from tests.vnet.agent.pool import TENANT, pool_of, vif
from tests.vnet.controller.daemons import DOCUMENT, Controller
from tests.vnet.controller.databases import stop_embedded
from vnet import api
from vnet.agent.http_door import MetricsPort

BIN = Path(os.environ.get("VNET_PROMETHEUS", "/")) / "usr" / "bin"
RULES = Path(__file__).parents[2] / "packaging" / "prometheus" / "vnet.rules.yaml"
CONFIGURATION = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: vnet-controller
    authorization: {{credentials_file: {token}}}
    static_configs: [{{targets: ["127.0.0.1:{controller}"]}}]
  - job_name: vnet-agent
    static_configs: [{{targets: ["127.0.0.1:{agent}"]}}]
"""


def promtool(*args: str) -> str:
    done = subprocess.run([BIN / "promtool", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_sound_and_fire_when_they_should() -> None:
    promtool("check", "rules", str(RULES))
    promtool("check", "config", "--syntax-only", str(RULES.with_name("prometheus.yaml")))
    promtool("test", "rules", str(Path(__file__).with_name("alerts.yaml")))


@pytest.mark.usefixtures("ovs")
async def test_prometheus_reads_agent_and_controller() -> None:
    ports = [free_port() for _ in range(3)]
    with run_dir() as path:
        listens = ("--listen", f"unix:{path}/run/controller.sock", "--listen", f"tcp:127.0.0.1:{ports[0]}")
        controller = Controller(path, listens)
        prometheus = None
        try:
            controller.start()
            token = path / "token"
            with controller.client() as client:
                client.apply(DOCUMENT, "test.vnet.yaml", wait_s=0)
                token.write_text(client.make_token("prometheus", api.TokenCall(role="viewer")).secret)
            async with pool_of("xen1", networks=(TENANT,)) as pool:
                host = pool.hosts["xen1"]
                await pool.insert(vif(1))
                host.add_port("p1", "vm1/0")
                await pool.wait_ready("vm1/0", "xen1")
                serving = asyncio.create_task(
                    MetricsPort(f"tcp:127.0.0.1:{ports[1]}", path, None).run(host.agent, path)
                )
                configuration = path / "prometheus.yaml"
                configuration.write_text(
                    CONFIGURATION.format(rules=RULES, token=token, controller=ports[0], agent=ports[1])
                )
                prometheus = spawn(
                    [str(BIN / "prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={path}/data",
                     f"--web.listen-address=127.0.0.1:{ports[2]}"], log=path / "prometheus.log",
                )  # fmt: skip
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[2]}/api/v1") as http:

                    async def value_of(query: str) -> float | None:
                        try:
                            found = (await http.get("/query", params={"query": query})).json()["data"]["result"]
                        except (httpx.TransportError, ValueError):
                            return None
                        return float(found[0]["value"][1]) if found else None

                    def becomes(query: str, expected: float) -> Awaitable[object]:
                        async def so() -> bool:
                            return await value_of(query) == expected

                        return until(so, query, limit_s=60)

                    await becomes('vnet_host_up{host="xen1"}', 0)
                    await becomes("vnet_networks", 4)
                    await becomes('count(vnet_vif_bytes_total{vif="vm1/0"})', 2)
                    await becomes("vnet_plug_seconds_count", 1)
                    await becomes('count(ALERTS{alertname="VnetHostDown",alertstate="pending"})', 3)
                    host.switch.stop()
                    await becomes("vnet_switch_up", 0)
                    await becomes('count(ALERTS{alertname="VnetSwitchDown",alertstate="pending"})', 1)
                serving.cancel()
        finally:
            if prometheus is not None:
                end(prometheus)
            controller.stop()
            stop_embedded(controller.database)
