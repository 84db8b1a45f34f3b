"""A change of one row, seen by a client that holds many: ovsctl against the `ovs` package's IDL."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import Figure, arguments, compare, in_process, report
from benchmarks.ovsdb_sync import PEER, filled_server

FIGURES = (Figure("median_ms", "ms", reach=1, below=1), Figure("worst_of_100_ms", "ms"))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    with filled_server(options.rows) as server:
        path = str(server.socket)
        peers = {
            "ovsctl": in_process(PEER, "ours", "update", path),
            "ovs.db.idl": in_process(PEER, "idl", "update", path),
        }
        work = f"a 1-row update seen by a client of {options.rows} rows, from the writer's request"
        result = compare(work, peers, FIGURES, options.runs)
    report([result], options.json)


if __name__ == "__main__":
    main()
