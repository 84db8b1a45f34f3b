"""One peer of the OVSDB benchmarks, in a process of its own: `ovsdb_peer.py ours|idl sync|update SOCKET`.

Prints one JSON object. `sync` is the time from before connecting until all rows can be read;
`update` is from the writer's request leaving until the reader's notice, in the same process clock.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ovsdb_rows import DATABASE, TABLE

UPDATES = 200
PAGE_BYTES = resource.getpagesize()


def resident_mb() -> float:
    """Physical memory in use now, in MB (10**6 bytes)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def peak_mb() -> float:
    """The most physical memory that was ever in use, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Writer:
    """Changes one row by raw JSON-RPC on a blocking socket, the same for every peer."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._uuid = ""

    def choose(self, uuid: str) -> None:
        self._uuid = uuid

    def send(self, number: int) -> None:
        operation = {
            "op": "update",
            "table": TABLE,
            "where": [["_uuid", "==", ["uuid", self._uuid]]],
            "row": {"key": number},
        }
        message = {"method": "transact", "params": [DATABASE, operation], "id": number}
        self._socket.sendall(json.dumps(message).encode())

    def answered(self) -> None:
        answer = json.loads(self._socket.recv(65536))
        if answer["error"] is not None or "error" in answer["result"][0]:
            raise RuntimeError(answer)


async def ours(path: str, work: str) -> dict[str, float]:
    from ovsctl.ovsdb import Monitor, OvsdbClient

    base_mb = resident_mb()
    start = time.perf_counter()
    async with OvsdbClient(f"unix:{path}", DATABASE, probe_interval_s=60) as client:
        replica = await client.monitor({TABLE: Monitor()})
        if work == "sync":
            return synced(start, base_mb, len(replica[TABLE]))
        seen = asyncio.Event()
        replica.subscribe(lambda batch: seen.set())
        writer, times = Writer(path), []
        writer.choose(next(iter(replica[TABLE])))
        for number in range(UPDATES):
            seen.clear()
            sent = time.perf_counter()
            writer.send(-1 - number)
            await seen.wait()
            times.append(time.perf_counter() - sent)
            writer.answered()
        return updated(times)


def idl(path: str, work: str) -> dict[str, float]:
    import ovs.db.idl
    import ovs.poller

    base_mb = resident_mb()
    start = time.perf_counter()
    schema = json.loads(Path(path).with_name("schema.json").read_text())
    helper = ovs.db.idl.SchemaHelper(schema_json=schema)
    helper.register_table(TABLE)
    seen: list[bool] = []

    class Watched(ovs.db.idl.Idl):  # type: ignore[misc]  # the package has no types
        def notify(self, event: Any, row: Any, updates: Any = None) -> None:
            seen.append(True)

    replica = (ovs.db.idl.Idl if work == "sync" else Watched)(f"unix:{path}", helper, probe_interval=60000)

    def run_until(done: Callable[[], object]) -> None:
        while True:
            replica.run()
            if done():
                return
            poller = ovs.poller.Poller()
            replica.wait(poller)
            poller.block()

    run_until(replica.has_ever_connected)
    if work == "sync":
        return synced(start, base_mb, len(replica.tables[TABLE].rows))
    writer, times = Writer(path), []
    writer.choose(str(next(iter(replica.tables[TABLE].rows))))
    for number in range(UPDATES):
        seen.clear()
        sent = time.perf_counter()
        writer.send(-1 - number)
        run_until(lambda: seen)
        times.append(time.perf_counter() - sent)
        writer.answered()
    return updated(times)


def synced(start: float, base_mb: float, rows: int) -> dict[str, float]:
    seconds = time.perf_counter() - start
    gc.collect()
    return {"seconds": seconds, "resident_MB": resident_mb() - base_mb, "peak_MB": peak_mb(), "rows": rows}


def updated(times: list[float]) -> dict[str, float]:
    return {"median_ms": statistics.median(times) * 1e3, "worst_of_100_ms": sorted(times)[-2] * 1e3}


if __name__ == "__main__":
    _, peer, work, path = sys.argv
    print(json.dumps(asyncio.run(ours(path, work)) if peer == "ours" else idl(path, work)))
