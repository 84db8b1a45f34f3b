"""Debian's nfdump reads what a real switch exports of its VIFs, by IPFIX and by NetFlow: `make test-monitoring`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.polling import until
from tests.servers import end, free_port, spawn
from tests.vnet.agent.pool import TENANT, pool_of, vif
from tests.vnet.agent.test_flow_export import column
from tests.vnet.agent.test_metrics import send, udp
from vnet.compile import flow_export, ovs
from vnet.objects import FlowCollector, FlowProtocol

BIN = Path(os.environ.get("VNET_PROMETHEUS", "/")) / "usr" / "bin"
FRAMES = 20


def records(directory: Path) -> list[list[str]]:
    """Source, destination, its port, packets and bytes of each record."""
    command = [BIN / "nfdump", "-R", directory, "-q", "-N", "-o", "fmt:%sa %da %dp %pkt %byt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.split() for line in done.stdout.splitlines() if len(line.split()) == 5]


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("protocol", [FlowProtocol.IPFIX, FlowProtocol.NETFLOW])
async def test_nfdump_reads_what_is_exported(
    protocol: FlowProtocol, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(flow_export, "ACTIVE_S", 1)
    ovs._rows.cache_clear()
    port = free_port()
    command = [BIN / "nfcapd", "-b", "127.0.0.1", "-p", str(port), "-w", tmp_path, "-t", "2"]  # a new file each 2 s
    collector = spawn(command, log=tmp_path.with_suffix(".log"))
    sample = 1 if protocol is FlowProtocol.IPFIX else None

    async def all_are_there() -> bool:
        mine = [record for record in records(tmp_path) if record[:3] == ["10.1.0.1", "10.1.0.2", "53"]]
        packets = sum(int(packets) for *_, packets, _ in mine)
        return packets == FRAMES if protocol is FlowProtocol.NETFLOW else packets >= FRAMES  # see docs/flow-export.md

    try:
        async with pool_of("xen1", networks=(TENANT,)) as pool:
            host = pool.hosts["xen1"]
            await pool.insert(vif(1), vif(2), FlowCollector("flows", protocol, f"127.0.0.1:{port}", sample))
            for number in (1, 2):
                host.add_port(f"p{number}", f"vm{number}/0")
                await pool.wait_ready(f"vm{number}/0", "xen1")
            await until(lambda: column(host, protocol.value) != "[]", "the export")
            send(host, "p1", udp(1, 2, port=53), FRAMES)
            await until(all_are_there, f"{FRAMES} packets in nfdump's records", limit_s=60)
    finally:
        end(collector, signal.SIGTERM)
        ovs._rows.cache_clear()
