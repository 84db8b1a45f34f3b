"""The table that the OVSDB benchmarks work on: ten columns of the kinds that real schemas have."""

from __future__ import annotations

from typing import Any

from ovsctl.ovsdb import Insert, OvsdbClient

DATABASE = "Bench"
TABLE = "Vif"


def _set_of(kind: str) -> dict[str, Any]:
    return {"type": {"key": kind, "min": 0, "max": "unlimited"}}


SCHEMA: dict[str, Any] = {
    "name": DATABASE,
    "version": "1.0.0",
    "tables": {
        TABLE: {
            "isRoot": True,
            "columns": {
                "name": {"type": "string"},
                "network": {"type": "uuid"},
                "mac": {"type": "string"},
                "addresses": _set_of("string"),
                "host": {"type": {"key": "string", "min": 0, "max": 1}},
                "tag": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 4095}, "min": 0}},
                "key": {"type": "integer"},
                "up": {"type": "boolean"},
                "weight": {"type": "real"},
                "external_ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            },
        }
    },
}


def row(number: int) -> dict[str, object]:
    """Row `number`: every column has a value of its own kind, none the default."""
    network = f"00000000-0000-4000-8000-{number // 50 + 1:012x}"
    low = f"{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return {
        "name": f"vif{number}",
        "network": network,
        "mac": f"0a:00:00:{low}",
        "addresses": (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",),
        "host": f"host{number % 64}",
        "tag": number % 4095 + 1,
        "key": number + 1,
        "up": True,
        "weight": 0.5,
        "external_ids": {"vm": f"vm{number // 2}"},
    }


async def fill(client: OvsdbClient, rows: int) -> None:
    """Insert the rows, 2,000 a transaction."""
    for start in range(0, rows, 2000):
        await client.transact(*(Insert(TABLE, row(n)) for n in range(start, min(rows, start + 2000))))
