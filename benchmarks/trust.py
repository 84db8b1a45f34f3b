"""The price of trust: a plug by TLS beside one in cleartext, and TCP through an encrypted tunnel beside a plain one.

`python -m benchmarks.trust [--plugs 100] [--runs 6] [--seconds 2]`. plug_ms: from the transaction that adds a port until the pool database has its binding ready;
agents of two hosts are in one process at one pool database, one by ssl: in a host's role, one by tcp:, and ports are plugged at the one and the other in turn.
mbps: between two hosts in namespaces, as in benchmarks.throughput; both tunnels are Geneve and carry the stream in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from benchmarks.systems import running, undisturbed
from benchmarks.throughput import NETWORK, Bench, pool_of
from ovsctl.ovsdb import Insert, Monitor, Mutate, NamedUuid, Operation, OvsdbClient, Replica
from tests.authorities import TestAuthority, role_options
from tests.polling import until
from tests.servers import free_port, ovsdb_server, vswitchd
from tests.vnet.agent.pool import SCHEMA, TENANT, HostUnderTest, PoolUnderTest, vif
from vnet.db.roles import role_operations
from vnet.db.rows import SCHEMA_NAME
from vnet.objects import Encryption, Host, Pool

HOSTS = ("secure", "plain")  # by ssl: and by tcp:
WARMING = 5  # plugs that are not counted
LIMIT_S = 10.0


async def plugs(count: int) -> dict[str, list[float]]:
    """The times of plugs in ms, by host."""
    ports = {name: free_port() for name in HOSTS}
    with contextlib.ExitStack() as stack:
        authority = TestAuthority(Path(stack.enter_context(TemporaryDirectory())))
        options = role_options(authority.server(), ports["secure"], authority.directory)
        server = stack.enter_context(
            ovsdb_server(SCHEMA, options=[*options, f"--remote=ptcp:{ports['plain']}:127.0.0.1"])
        )
        switches = {name: stack.enter_context(vswitchd()) for name in HOSTS}
        remotes = {"secure": f"ssl:127.0.0.1:{ports['secure']}", "plain": f"tcp:127.0.0.1:{ports['plain']}"}
        async with OvsdbClient([server.remote], SCHEMA_NAME) as client:
            tls = {"secure": authority.host("secure"), "plain": None}
            hosts = {name: HostUnderTest(name, switches[name], [remotes[name]], tls[name]) for name in HOSTS}
            await client.transact(*role_operations())
            pool = PoolUnderTest(server, client, hosts)
            await pool.insert(Pool("test"), TENANT, *(Host(name, f"10.99.0.{at}") for at, name in enumerate(HOSTS, 1)))
            number = range(1, 2 * (count + WARMING) + 1)
            await pool.insert(
                *(
                    replace(
                        vif(n % 256), id=f"vm{n}/0", mac=f"0a:00:00:00:{n >> 8:02x}:{n & 255:02x}", host=HOSTS[n % 2]
                    )
                    for n in number
                )
            )
            for host in hosts.values():
                host.start()
            try:
                for host in hosts.values():
                    await until(lambda host=host: host.agent.flows.connected and host.agent.rows.settled, "agents")  # type: ignore[misc]
                bindings = await client.monitor({"Binding": Monitor(columns=("vif", "ready"))})
                found: dict[str, list[float]] = {name: [] for name in HOSTS}
                for n in number:
                    name = HOSTS[n % 2]
                    found[name].append(await _plug(hosts[name].agent.ovs_client, n, bindings))
                return {name: times[WARMING:] for name, times in found.items()}
            finally:
                for host in hosts.values():
                    await host.stop()


def _port(name: str, vif: str) -> list[Operation]:
    """What `ovs-vsctl add-port` does."""
    interface = {"name": name, "type": "dummy", "external_ids": {"iface-id": vif}}
    return [
        Insert("Interface", interface, uuid_name="interface"),
        Insert("Port", {"name": name, "interfaces": NamedUuid("interface")}, uuid_name="port"),
        Mutate("Bridge", (("name", "==", "br-int"),), (("ports", "insert", frozenset({NamedUuid("port")})),)),
    ]


async def _plug(switch: OvsdbClient, number: int, bindings: Replica) -> float:
    ready = asyncio.Event()

    def changed(batch: object) -> None:
        if any(row["ready"] and row["vif"] == f"vm{number}/0" for row in bindings["Binding"].values()):
            ready.set()

    unsubscribe = bindings.subscribe(changed)
    begun = time.perf_counter()
    adding = switch.send(*_port(f"p{number}", f"vm{number}/0"))
    async with asyncio.timeout(LIMIT_S):
        await ready.wait()
    taken = (time.perf_counter() - begun) * 1000
    unsubscribe()
    await adding
    return taken


async def streams(runs: int, seconds: float) -> dict[str, list[float]]:
    """Mbit/s by tunnel."""
    clear = pool_of()
    secret = replace(clear, networks={NETWORK.name: replace(NETWORK, encryption=Encryption.REQUIRED)})
    async with contextlib.AsyncExitStack() as stack:
        benches = []
        for name, pool in (("plain", clear), ("encrypted", secret)):
            lab = (await stack.enter_async_context(running("vnet", pool))).lab
            bench = Bench(name, lab)
            await asyncio.to_thread(bench.plug)
            stack.enter_context(undisturbed(lab))
            benches.append(bench)
        return await asyncio.to_thread(lambda: dict(_rounds(benches, runs, seconds)))


def _rounds(benches: list[Bench], runs: int, seconds: float) -> Iterator[tuple[str, list[float]]]:
    found: dict[str, list[float]] = {bench.name: [] for bench in benches}
    for _ in range(runs):
        for bench in benches:
            found[bench.name].append(bench.stream("open", "two hosts", seconds).mbps)
    yield from found.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugs", type=int, default=100)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    if given.plugs:
        times = asyncio.run(plugs(given.plugs))
        for name in HOSTS:
            low, _, high = quantiles(times[name], n=4)
            print(
                f"plug, {name}: median {median(times[name]):.2f} ms, quartiles {low:.2f} and {high:.2f}, of {len(times[name])}"
            )
        differences = [secure - plain for secure, plain in zip(times["secure"], times["plain"], strict=True)]
        print(f"TLS costs a plug {median(differences):.2f} ms (median of the differences of neighbours)")
    if given.runs:
        for name, found in asyncio.run(streams(given.runs, given.seconds)).items():
            print(
                f"TCP, {name}: median {median(found):.0f} Mbit/s, {min(found):.0f} to {max(found):.0f}, of {len(found)}"
            )


if __name__ == "__main__":
    main()
