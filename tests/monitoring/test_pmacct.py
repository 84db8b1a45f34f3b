"""Debian's pmacct adds up what a real switch exports of a VIF by IPFIX, by name, packet for packet and byte for byte: `make test-monitoring`."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest

from tests.polling import until
from tests.servers import end, free_port, spawn
from tests.vnet.agent.pool import TENANT, pool_of, vif
from tests.vnet.agent.test_flow_export import column, sets
from vnet.compile import flow_export, ovs
from vnet.objects import FlowCollector, FlowProtocol

ROOT = Path(os.environ.get("VNET_PROMETHEUS", "/")) / "usr"
FRAMES = 20
IP_BYTES = 86
IP_HEADER = f"4500 {IP_BYTES:04x} 0000 0000 4011 0000 0a010001 0a010002"
UDP_HEADER = f"0001 0035 {IP_BYTES - 20:04x} 0000"
FRAME = bytes.fromhex(f"0a0000000002 0a0000000001 0800 {IP_HEADER} {UDP_HEADER}") + b"?" * (IP_BYTES - 28)
# virtualObsID of enterprise 6876 (ovs-vswitchd.conf.db(5), IPFIX), and flowDirection
PRIMITIVES = "name=observer field_type=6876:898 len=vlen semantics=str\nname=way field_type=61 len=1 semantics=u_int\n"
CONFIG = """\
daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: {port}
aggregate_primitives: {directory}/primitives
aggregate: src_host, dst_host, dst_port, proto, observer, way
plugins: print
print_refresh_time: 1
print_output: csv
print_output_separator: ;
print_output_file: {directory}/records
print_output_file_append: true
"""


def records(directory: Path) -> dict[tuple[str, ...], tuple[int, int]]:
    """Packets and bytes by observer, direction, source, destination and its port."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    path = directory / "records"
    for row in csv.DictReader(path.open(), delimiter=";") if path.exists() else ():
        if row["PACKETS"] != "PACKETS":  # once for each file that was appended
            key = tuple(row[name] for name in ("observer", "way", "SRC_IP", "DST_IP", "DST_PORT"))
            packets, size = found.get(key, (0, 0))
            found[key] = packets + int(row["PACKETS"]), size + int(row["BYTES"])
    return found


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("of", [(), ("vm1/0",)])
async def test_pmacct_adds_up_what_was_sent(
    of: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(flow_export, "ACTIVE_S", 1)
    ovs._rows.cache_clear()
    port = free_port()
    (tmp_path / "primitives").write_text(PRIMITIVES)
    (tmp_path / "config").write_text(CONFIG.format(port=port, directory=tmp_path))
    (libraries,) = (ROOT / "lib").glob("*-linux-gnu")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    collector = spawn([ROOT / "sbin" / "nfacctd", "-f", tmp_path / "config"], log=tmp_path / "log", env=environment)
    try:
        async with pool_of("xen1", networks=(TENANT,)) as pool:
            host = pool.hosts["xen1"]
            await pool.insert(vif(1), vif(2), FlowCollector("flows", FlowProtocol.IPFIX, f"127.0.0.1:{port}", 1, of=of))
            for number in (1, 2):
                host.add_port(f"p{number}", f"vm{number}/0")
                await pool.wait_ready(f"vm{number}/0", "xen1")
            await until(lambda: sets(host) if of else column(host, "ipfix") != "[]", "the export")
            host.switch.appctl("netdev-dummy/receive", "p1", *[FRAME.hex()] * FRAMES)
            observer = "vif=vm1/0 network=tenant host=xen1" if of else "xen1"
            sent = {(observer, "0", "10.1.0.1", "10.1.0.2", "53"): (FRAMES, FRAMES * IP_BYTES)}
            await until(lambda: records(tmp_path) == sent, "what was sent", limit_s=60)
    finally:
        end(collector, signal.SIGINT)
        ovs._rows.cache_clear()
