"""Initial sync of a table of ten columns: ovsctl against the `ovs` package's IDL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import Figure, arguments, compare, in_process, report
from benchmarks.ovsdb_rows import DATABASE, SCHEMA, fill
from ovsctl.ovsdb import OvsdbClient
from tests.servers import OvsdbServer, ovsdb_server

PEER = str(Path(__file__).with_name("ovsdb_peer.py"))
FIGURES = (
    Figure("seconds", "s", reach=7),
    Figure("resident_MB", "MB", reach=2),
    Figure("peak_MB", "MB", reach=2),
)


@contextmanager
def filled_server(rows: int) -> Iterator[OvsdbServer]:
    """A server with the benchmark's rows."""

    async def write(server: OvsdbServer) -> None:
        async with OvsdbClient(server.remote, DATABASE) as client:
            await fill(client, rows)

    with ovsdb_server(SCHEMA) as server:
        asyncio.run(write(server))
        yield server


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    with filled_server(options.rows) as server:
        path = str(server.socket)
        peers = {
            "ovsctl": in_process(PEER, "ours", "sync", path),
            "ovs.db.idl": in_process(PEER, "idl", "sync", path),
        }
        result = compare(f"initial sync of {options.rows} rows of 10 columns", peers, FIGURES, options.runs)
    report([result], options.json)


if __name__ == "__main__":
    main()
