"""A pool database as large as pools get: hosts, networks, and VIFs that run on them, written straight into an ovsdb-server.

Host n's name is `host<n>`, network n's `net<n>`; VIF n is `vm<n>/0` on network n modulo the number of networks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ovsctl.ovsdb import Insert, OvsdbClient
from tests.servers import OvsdbServer, ovsdb_server
from vnet.db.rows import SCHEMA_NAME, TABLE_OF, to_columns
from vnet.objects import Binding, Host, Network, NetworkType, Pool, Uplink, Vif

SCHEMA = Path(__file__).parents[1] / "vnet/db/vnet.ovsschema"
BATCH = 5_000


def network(number: int) -> Network:
    return Network(f"net{number}", NetworkType.VXLAN, number + 1, 1450, key=5_001 + number)


def host(number: int) -> Host:
    address = f"10.{99 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return Host(f"host{number}", address, (Uplink("trunk0", ("eth1",)),))


def vif(number: int, networks: int, on: str | None = None) -> Vif:
    """VIF `number` of a pool with so many networks. on: the host that it is wanted on."""
    octets = number.to_bytes(4, "big")
    mac = "0a:00:" + octets.hex(":")
    return Vif(
        f"vm{number}/0", f"net{number % networks}", mac, addresses=(f"10.{octets[1]}.{octets[2]}.{octets[3]}",), host=on
    )


def running(it: Vif, on: str) -> Binding:
    """That VIF runs on a host, which said so."""
    return Binding(it.id, on, it.network, it.mac, 1, addresses=it.addresses, ready=True)


def inserts(values: Iterable[Pool | Host | Network | Vif | Binding]) -> Iterator[Insert]:
    """The rows of values, as operations."""
    for value in values:
        yield Insert(TABLE_OF[type(value)], to_columns(value))
        if isinstance(value, Host):
            yield from (Insert("Uplink", to_columns(uplink) | {"host": value.name}) for uplink in value.uplinks)


async def write(client: OvsdbClient, values: Iterable[Pool | Host | Network | Vif | Binding]) -> None:
    """Inserts in large transactions."""
    operations = list(inserts(values))
    for start in range(0, len(operations), BATCH):
        await client.transact(*operations[start : start + BATCH])


@dataclass(frozen=True, slots=True)
class Size:
    """How large a pool is."""

    hosts: int = 1_000
    networks: int = 5_000
    vifs: int = 100_000

    def __str__(self) -> str:
        return f"{self.hosts:,} hosts, {self.networks:,} networks, {self.vifs:,} VIFs"


def contents(size: Size, mine: str = "", local: Iterable[int] = ()) -> Iterator[Pool | Host | Network | Vif | Binding]:
    """Every row of a pool of that size. The VIFs `local` are wanted on host `mine` and have no binding; others run elsewhere."""
    here = set(local)
    yield Pool("large")
    yield from map(host, range(size.hosts))
    yield from map(network, range(size.networks))
    for number in range(size.vifs):
        if number in here:
            yield vif(number, size.networks, mine)
        else:
            it = vif(number, size.networks)
            yield Vif(it.id, it.network, it.mac, addresses=it.addresses, epoch=1)
            yield running(it, f"host{1 + number % (size.hosts - 1)}")


@contextmanager
def pool_server(values: Iterable[Pool | Host | Network | Vif | Binding]) -> Iterator[OvsdbServer]:
    """A pool database with these rows."""

    async def fill(server: OvsdbServer) -> None:
        async with OvsdbClient(server.remote, SCHEMA_NAME) as client:
            await write(client, values)

    with ovsdb_server(SCHEMA) as server:
        asyncio.run(fill(server))
        yield server
