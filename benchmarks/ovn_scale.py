"""OVN of the distribution at scale, without a lab: its databases, northd, ovn-controllers, and what a pool of ours is in its words.

The one rule: OVN gets the same networks, VIFs, addresses and port security as we do, through the same client and in as few transactions.
`settled` is what `ovn-nbctl --wait=sb sync` waits for: northd has compiled everything up to now into the southbound database.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import Figure, Result
from benchmarks.processes import Process
from ovsctl.ovsdb import Insert, Monitor, Mutate, NamedUuid, Operation, OvsdbClient, Replica, Select, Update, by_uuid
from tests.servers import OvsdbServer, end, run, spawn
from vnet.objects import Host, Network, NetworkType, Vif

SCHEMAS = Path("/usr/share/ovn")
NORTHBOUND, SOUTHBOUND = "OVN_Northbound", "OVN_Southbound"
BATCH = 5_000
# What ovn-controllers of this version say of themselves: northd compiles for the least of all hosts.
ABLE = dict.fromkeys(("port-up-notif", "ct-no-masked-label", "mac-binding-timestamp", "ovn-ct-lb-related"), "true")


@dataclass
class Central:
    """OVN's two databases in a directory, and northd while it runs."""

    dir: Path
    nb: OvsdbServer = field(init=False)
    sb: OvsdbServer = field(init=False)
    northd: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.nb, self.sb = (
            OvsdbServer(self.dir, self.dir / f"{short}.db", name, socket_name=f"{short}.sock")
            for short, name in (("nb", NORTHBOUND), ("sb", SOUTHBOUND))
        )

    def __enter__(self) -> Central:
        """Both databases run; they are new where the directory has none."""
        for short, server in (("nb", self.nb), ("sb", self.sb)):
            if not server.database.exists():
                run("ovsdb-tool", "create", str(server.database), str(SCHEMAS / f"ovn-{short}.ovsschema"))
                # northd would make the row too, and one of us would then be too many.
                top = {"op": "insert", "table": f"{short.upper()}_Global", "row": {}}
                run("ovsdb-tool", "transact", str(server.database), json.dumps([server.name, top]))
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_northd()
        self.sb.stop()
        self.nb.stop()

    def start_northd(self) -> None:
        command = ["ovn-northd", f"--ovnnb-db={self.nb.remote}", f"--ovnsb-db={self.sb.remote}", "--no-chdir",
                   f"--unixctl={self.dir}/northd.ctl", "-vsyslog:off", "-vconsole:warn"]  # fmt: skip
        env = {name: str(self.dir) for name in ("OVN_RUNDIR", "OVS_RUNDIR")}
        self.northd = spawn(command, log=self.dir / "northd.log", env=env)

    def stop_northd(self) -> None:
        if self.northd is not None:
            end(self.northd)
            self.northd = None

    def spent(self) -> dict[str, Process]:
        """What each of them costs and has cost."""
        found = {"nb": self.nb.process, "sb": self.sb.process, "northd": self.northd}
        return {name: Process.of(process.pid) for name, process in found.items() if process is not None}

    def cpu_s(self) -> float:
        """Processor time of all of them so far."""
        return sum(process.cpu_s for process in self.spent().values())

    def northd_pids(self) -> list[int]:
        return [self.northd.pid] if self.northd is not None else []

    @asynccontextmanager
    async def northbound(self) -> AsyncIterator[Northbound]:
        async with OvsdbClient(self.nb.remote, NORTHBOUND) as client:
            yield Northbound(client, await client.monitor({"NB_Global": Monitor(columns=("sb_cfg",))}))


@dataclass
class Northbound:
    """A client of the northbound database."""

    client: OvsdbClient
    replica: Replica

    async def settled(self, *operations: Operation, timeout_s: float = 60.0) -> None:
        """Commits the operations and returns once northd has compiled them."""
        *_, rows = await self.client.transact(
            *operations, Mutate("NB_Global", (), (("nb_cfg", "+=", 1),)), Select("NB_Global", (), ("nb_cfg",)),
            timeout_s=timeout_s,
        )  # fmt: skip
        wanted = rows[0]["nb_cfg"]
        await until(
            self.replica, lambda: any(row["sb_cfg"] >= wanted for row in self.replica["NB_Global"].values()), timeout_s
        )


async def until(replica: Replica, condition: Callable[[], bool], timeout_s: float) -> None:
    """Returns once it holds of the replica; TimeoutError otherwise."""
    done = asyncio.Event()
    unsubscribe = replica.subscribe(lambda _: done.set() if condition() else None)
    try:
        async with asyncio.timeout(timeout_s):
            if not condition():
                await done.wait()
    finally:
        unsubscribe()


def port(vif: Vif, name: str) -> Insert:
    """A VIF that may speak for its own MAC and addresses; `name` is its row's in the transaction."""
    who = frozenset({f"{vif.mac} {' '.join(vif.addresses)}"})
    options = {"requested-chassis": vif.host} if vif.host else {}
    return Insert(
        "Logical_Switch_Port", {"name": vif.id, "addresses": who, "port_security": who, "options": options}, name
    )


def switches(networks: Iterable[Network], vifs: Iterable[Vif]) -> Iterator[list[Operation]]:
    """Each network with its VIFs, as operations that belong in one transaction."""
    of: dict[str, list[Vif]] = {}
    for vif in vifs:
        of.setdefault(vif.network, []).append(vif)
    for number, network in enumerate(networks):
        ports = [port(vif, f"p{number}_{n}") for n, vif in enumerate(of.get(network.name, ()))]
        if network.type is NetworkType.VLAN:
            outside = {"name": f"{network.name}-outside", "type": "localnet", "tag": network.tag,
                       "addresses": frozenset({"unknown"}), "options": {"network_name": network.uplink}}  # fmt: skip
            ports.append(Insert("Logical_Switch_Port", outside, f"p{number}_outside"))
        names = frozenset(NamedUuid(it.uuid_name) for it in ports if it.uuid_name)
        yield [*ports, Insert("Logical_Switch", {"name": network.name, "ports": names})]


async def write(client: OvsdbClient, groups: Iterable[list[Operation]]) -> None:
    """Groups in large transactions."""
    pending: list[Operation] = []
    for group in groups:
        pending += group
        if len(pending) >= BATCH:
            await client.transact(*pending)
            pending = []
    if pending:
        await client.transact(*pending)


def chassis(hosts: Iterable[Host]) -> Iterator[list[Operation]]:
    """Hosts as their ovn-controllers put themselves into the southbound database."""
    for number, host in enumerate(hosts):
        encap = {"type": "geneve", "ip": host.address, "chassis_name": host.name, "options": {"csum": "true"}}
        row = {
            "name": host.name,
            "hostname": host.name,
            "other_config": ABLE,
            "encaps": frozenset({NamedUuid(f"e{number}")}),
        }
        yield [Insert("Encap", encap, f"e{number}"), Insert("Chassis", row)]


async def bind(client: OvsdbClient, where: Mapping[str, str]) -> None:
    """Ports run on hosts, which said so: what `ovn-sbctl lsp-bind` does, for thousands in a second."""
    hosts, ports = await client.transact(
        Select("Chassis", (), ("_uuid", "name")), Select("Port_Binding", (), ("_uuid", "logical_port"))
    )
    uuids = {row["name"]: row["_uuid"] for row in hosts}
    await write(
        client,
        (
            [Update("Port_Binding", by_uuid(row["_uuid"]), {"chassis": uuids[host], "up": True})]
            for row in ports
            if (host := where.get(row["logical_port"])) is not None
        ),
    )


def settings(host: str, address: str, sb: str) -> dict[str, str]:
    """What makes an ovn-controller a host of OVN: external_ids of Open_vSwitch. It asks only for what its host needs."""
    return {"system-id": host, "ovn-remote": sb, "ovn-encap-type": "geneve", "ovn-encap-ip": address,
            "ovn-monitor-all": "false"}  # fmt: skip


def start_controller(ovs: OvsdbServer, name: str, *options: str, rundir: Path | None = None) -> subprocess.Popen[bytes]:
    """ovn-controller on that switch's database, which dies with us. rundir: where the bridge is, if not beside the database."""
    command = ["ovn-controller", ovs.remote, "--no-chdir", "-vsyslog:off", "-vconsole:warn", *options]
    env = {"OVN_RUNDIR": str(ovs.dir), "OVS_RUNDIR": str(rundir or ovs.dir)}
    return spawn(command, log=ovs.dir / f"{name}.log", env=env)


def alone(name: str, figures: Sequence[Figure], samples: Sequence[Mapping[str, float]]) -> Result:
    """Medians of what only this system has."""
    medians = Result.of("", figures, samples).medians["vnet"]
    return Result(f"{name} alone", tuple(figures), {name: medians}, len(samples))
