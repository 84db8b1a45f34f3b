"""vnet and OVN on the same three-host lab: what a benchmark does to a pool, in each one's own words.

The one rule: both get the same hosts, the same Open vSwitch, the same VMs, the same add-port call, and the same policy (a port
may speak for its own MAC and addresses).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ovsctl.appctl import call_sync
from ovsctl.ovsdb import Delete, Insert, Mutate, NamedUuid, Operation, OvsdbClient, Select, Update, by_uuid
from vnet.api.errors import ClientError
from vnet.client.local import call_agent
from vnet.db.rows import TABLE_OF, to_columns
from vnet.lab import Driver, Lab
from vnet.lab.names import MARK, host_netns
from vnet.lab.processes import alive, marked, run, start, stop, wait_until
from vnet.lab.switchd import tool_path
from vnet.objects import Binding, Host, Network, NetworkType, Pool, PoolState, Vif, Vm

HOSTS = ("xen1", "xen2", "xen3")
BATCH = 2000
SYNC_LIMIT_S = 600.0


def mac_of(number: int) -> str:
    return f"0a:00:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def pool_of(vms: Sequence[tuple[str, str]], network: Network) -> PoolState:
    """Three hosts, one network, and a VM of one VIF for each (name, host)."""
    hosts = {name: Host(name, f"10.99.0.{number}") for number, name in enumerate(HOSTS, 1)}
    vifs = {}
    for number, (vm, host) in enumerate(vms, 1):
        vif = Vif(f"{vm}/0", network.name, mac_of(number), vm=vm, host=host, addresses=(f"10.1.0.{number}",))
        vifs[vif.id] = vif
    return PoolState(
        Pool("bench", underlay_mtu=1600),
        hosts,
        {network.name: network},
        {},
        {vm: Vm(vm, host) for vm, host in vms},
        vifs,
    )


NETWORK = Network("net", NetworkType.GENEVE, 1, 1450, key=5001)


@contextlib.contextmanager
def undisturbed(lab: Lab, *, forwarding_first: bool = False) -> Iterator[None]:
    """The lab's processes and this one go before all others on the machine, whose load is not what is measured; with
    `forwarding_first` the switches and the wires before the rest of the lab, as on hosts with processors of their own: where
    frames are counted, those that only waited for a processor are not what is measured either."""
    _schedule(lab, os.SCHED_RR, 1, 2 if forwarding_first else 1)
    try:
        yield
    finally:
        _schedule(lab, os.SCHED_OTHER, 0, 0)


def _schedule(lab: Lab, policy: int, control: int, forwarding: int) -> None:
    for pid in (*marked(lab.spec.dir), os.getpid()):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            forwards = Path(command[0].decode()).name == "ovs-vswitchd" or b"vnet.lab.packet_bridge" in command
            priority = os.sched_param(forwarding if forwards else control)
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setscheduler(int(thread), policy, priority)


class System(ABC):
    """A network virtualization on a lab that is up."""

    name: str

    def __init__(self, lab: Lab, pool: PoolState) -> None:
        self.lab = lab
        self.pool = pool

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def create(self, vif: Vif) -> None:
        """The VIF exists; no port yet."""

    async def expect(self, vif: Vif) -> int | None:
        """The VIF exists, and its port is going to be added where it is wanted; what that is to ask for as its number, if anything."""
        await self.create(vif)
        return None

    @abstractmethod
    async def delete(self, vif: Vif) -> None: ...

    @abstractmethod
    async def fill(self, network: Network, first: int, count: int) -> None:
        """`count` more VIFs on a network, running on hosts that are not in the lab."""

    @abstractmethod
    async def migrate(self, vm: str, source: str, to: str, pause_s: float) -> None:
        """Moves a running VM as a toolstack does; the guest switches hosts in an instant, after `pause_s` of standing still, and
        announces itself. Returns once it is unplugged at the source."""

    @abstractmethod
    async def stop_agent(self, host: str, *, crash: bool = True) -> None:
        """Ends what programs a host's switch, as a crash or asked to leave the flows; returns once it has ended."""

    @abstractmethod
    async def start_agent(self, host: str) -> None: ...

    @abstractmethod
    async def ask(self) -> None:
        """Makes a change that `in_sync` hears the hosts' answer to. Quick: it may be made while a switch is down."""

    @abstractmethod
    async def in_sync(self, host: str, poll_s: float = 0.005) -> None:
        """Returns once a host says, since `ask`, that its switch has every flow. Each poll takes it from its work."""

    @abstractmethod
    async def settled(self) -> None:
        """Everything so far is programmed on every host of the lab."""

    @contextlib.contextmanager
    def undisturbed(self, *, forwarding_first: bool = False) -> Iterator[None]:
        """As `undisturbed` of this lab."""
        with undisturbed(self.lab, forwarding_first=forwarding_first):
            yield

    def make_port(self, vm: str, host: str) -> dict[str, object]:
        """The VM's device on a host, with the guest running on it, and the row that its port will need."""
        (vif,) = self.lab.spec.guest(vm).vifs
        columns = self.lab.driver.plug(vif, host)
        self.lab.driver.plugged(vif, host)
        self.lab.run(vm, host)
        row: dict[str, object] = {"name": self.lab.spec.device(vif), "external_ids": {"iface-id": vif.id}}
        return row | {key: value for key, value in columns.items() if key == "type"}

    async def add_port(self, row: dict[str, object], host: str) -> int:
        """Adds a port to br-int; the time (monotonic ns) of the call."""
        ovs = await self._ovs(host)
        (bridges,) = await ovs.transact(Select("Bridge", (("name", "==", "br-int"),), ("_uuid",)))
        add: list[Operation] = [
            Insert("Interface", row, "iface"),
            Insert("Port", {"name": row["name"], "interfaces": frozenset({NamedUuid("iface")})}, "port"),
            Mutate("Bridge", by_uuid(bridges[0]["_uuid"]), (("ports", "insert", frozenset({NamedUuid("port")})),)),
            Mutate("Open_vSwitch", (), (("next_cfg", "+=", 1),)),
        ]
        called = time.monotonic_ns()
        await ovs.transact(*add)
        return called

    async def del_port(self, name: str, host: str) -> None:
        """Takes a port off br-int, as ovs-vsctl del-port does."""
        ovs = await self._ovs(host)
        (ports,) = await ovs.transact(Select("Port", (("name", "==", name),), ("_uuid",)))
        await ovs.transact(
            Mutate("Bridge", (("name", "==", "br-int"),), (("ports", "delete", frozenset({ports[0]["_uuid"]})),)),
            Mutate("Open_vSwitch", (), (("next_cfg", "+=", 1),)),
        )

    def sent_by(self, host: str) -> int:
        """How many frames a host has sent into the underlay."""
        table = Path(f"/proc/{self.lab.ovs(host).pid('ovs-vswitchd')}/net/dev").read_text()
        line = next(line for line in table.splitlines() if line.strip().startswith("lab-phy:"))
        return int(line.partition(":")[2].split()[9])

    async def _ovs(self, host: str) -> OvsdbClient:
        if host not in self._clients:
            client = OvsdbClient([self.lab.ovs(host).db], "Open_vSwitch")
            await client.open()
            self._clients[host] = client
        return self._clients[host]

    @property
    def _clients(self) -> dict[str, OvsdbClient]:
        clients: dict[str, OvsdbClient] = self.__dict__.setdefault("clients", {})
        return clients

    async def close_clients(self) -> None:
        for client in self._clients.values():
            await client.close()


class Vnet(System):
    """The lab's own daemons."""

    name = "vnet"

    async def open(self) -> None:
        self._client = OvsdbClient([f"unix:{self.lab.daemons.pool_socket}"], "Vnet")
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def create(self, vif: Vif) -> None:
        await self._client.transact(Insert("Vif", to_columns(vif)))

    async def expect(self, vif: Vif) -> int | None:
        await self.create(replace(vif, awaited=True))
        for _ in range(400):
            (rows,) = await self._client.transact(Select("Binding", (("vif", "==", vif.id),), ("ofport",)))
            if rows:
                return int(rows[0]["ofport"])
            await asyncio.sleep(0.01)
        raise TimeoutError(f"VIF {vif.id} is not awaited")

    async def delete(self, vif: Vif) -> None:
        await self._client.transact(Delete("Vif", (("id", "==", vif.id),)))

    async def fill(self, network: Network, first: int, count: int) -> None:
        far = [Host(f"far{n}", f"10.99.1.{n + 1}") for n in range(20)]
        (known,) = await self._client.transact(Select("Host", (), ("name",)))
        names = {row["name"] for row in known}
        await self._insert([Insert("Host", to_columns(host)) for host in far if host.name not in names])
        (networks,) = await self._client.transact(Select("Network", (("name", "==", network.name),), ("name",)))
        if not networks:
            await self._insert([Insert("Network", to_columns(network))])
        operations = []
        for number in range(first, first + count):
            vif = Vif(f"far{number}/0", network.name, mac_of(number), addresses=(address_of(number),), epoch=1)
            operations.append(Insert(TABLE_OF[Vif], to_columns(vif)))
            binding = Binding(
                vif.id, far[number % 20].name, network.name, vif.mac, 1, addresses=vif.addresses, ready=True
            )
            operations.append(Insert(TABLE_OF[Binding], to_columns(binding)))
        await self._insert(operations)

    async def _insert(self, operations: Sequence[Operation]) -> None:
        for start_at in range(0, len(operations), BATCH):
            await self._client.transact(*operations[start_at : start_at + BATCH])

    async def migrate(self, vm: str, source: str, to: str, pause_s: float) -> None:
        await asyncio.to_thread(self.lab.migrate, vm, to, pause_s=pause_s)

    async def stop_agent(self, host: str, *, crash: bool = True) -> None:
        await asyncio.to_thread(self.lab.daemons.kill, host, signal.SIGKILL if crash else signal.SIGTERM)

    async def start_agent(self, host: str) -> None:
        await asyncio.to_thread(self.lab.daemons.start_agent, host, self.lab.ovs(host))

    async def ask(self) -> None:
        """Nothing: its agent's socket says it."""

    async def in_sync(self, host: str, poll_s: float = 0.005) -> None:
        await self.says(host, "switch", poll_s)  # it has read every flow back, compared and made good

    async def says(self, host: str, wanted: str, poll_s: float = 0.005) -> None:
        """Waits until an agent's socket says that it is `wanted`: complete, switch."""
        path, deadline = str(self.lab.daemons.agent_socket(host)), time.monotonic() + SYNC_LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(ClientError):
                if (await asyncio.to_thread(call_agent, "status", {}, path, 1.0))[wanted]:
                    return
            await asyncio.sleep(poll_s)
        raise TimeoutError(f"the agent of {host} does not say {wanted!r} after {SYNC_LIMIT_S:.0f} s")

    async def settled(self) -> None:
        await asyncio.to_thread(self.lab.daemons.settle)


def address_of(number: int) -> str:
    return f"10.{2 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class Ovn(System):
    """OVN of the distribution: northbound and southbound databases, northd, and ovn-controller on each host."""

    name = "OVN"

    async def open(self) -> None:
        self.dir = self.lab.spec.dir / "ovn"
        self.dir.mkdir()
        self.env = {
            **{name: str(self.dir) for name in ("OVN_RUNDIR", "OVS_RUNDIR", "OVN_LOGDIR", "OVS_LOGDIR", "OVN_DBDIR")},
            MARK: str(self.lab.spec.dir),
            "PATH": tool_path(),
        }
        for short in ("nb", "sb"):
            database = self.dir / f"{short}.db"
            run(["ovsdb-tool", "create", str(database), f"/usr/share/ovn/ovn-{short}.ovsschema"], env=self.env)
            self._daemon(short, None, ["ovsdb-server", str(database), f"--remote=punix:{self.dir}/{short}.sock",
                                       f"--unixctl={self.dir}/{short}.ctl"])  # fmt: skip
            wait_until((self.dir / f"{short}.sock").exists, f"OVN's {short} database")
        self.nb, self.sb = (f"unix:{self.dir}/{short}.sock" for short in ("nb", "sb"))
        self._daemon("northd", None, ["ovn-northd", f"--ovnnb-db={self.nb}", f"--ovnsb-db={self.sb}",
                                      f"--unixctl={self.dir}/northd.ctl"])  # fmt: skip
        self.nbctl("init")
        self._nb, self._sb = OvsdbClient([self.nb], "OVN_Northbound"), OvsdbClient([self.sb], "OVN_Southbound")
        await self._nb.open()
        await self._sb.open()
        self._asked = 0
        self._controllers: dict[str, int] = {}
        for host in self.pool.hosts.values():
            await self._host(host)
        for network in self.pool.networks.values():
            self.nbctl("ls-add", network.name)
        for vif in self.pool.vifs.values():
            await self.create(vif)

    def _daemon(self, name: str, netns: str | None, args: list[str], **env: str) -> int:
        log = self.dir / f"{name}.log"
        return start(
            [*args, "--no-chdir", "-vsyslog:off", "-vconsole:warn"], log=log, env={**self.env, **env}, netns=netns
        )

    async def _host(self, host: Host) -> None:
        self.lab.ovs(host.name).vsctl(
            "set", "open_vswitch", ".", f"external_ids:system-id={host.name}", f"external_ids:ovn-remote={self.sb}",
            "external_ids:ovn-encap-type=geneve", f"external_ids:ovn-encap-ip={host.address}",
            "external_ids:ovn-bridge-datapath-type=netdev", "external_ids:ovn-monitor-all=false",
        )  # fmt: skip
        await self.start_agent(host.name)

    async def start_agent(self, host: str) -> None:
        ovs = self.lab.ovs(host)
        self._controllers[host] = self._daemon(
            f"controller-{host}", host_netns(self.lab.spec.name, host), ["ovn-controller", ovs.db],
            OVS_RUNDIR=str(ovs.dir), OVN_RUNDIR=str(ovs.dir),
        )  # fmt: skip

    async def stop_agent(self, host: str, *, crash: bool = True) -> None:
        if crash:
            await asyncio.to_thread(stop, [self._controllers[host]])
            return
        await asyncio.to_thread(self.controller, host, "exit", "--restart")
        await asyncio.to_thread(
            wait_until, lambda: not alive(self._controllers[host]), f"the end of {host}'s controller"
        )

    def controller(self, host: str, *command: str) -> str:
        """Asks a host's ovn-controller, as ovn-appctl does."""
        return call_sync(self.lab.ovs(host).dir / f"ovn-controller.{self._controllers[host]}.ctl", *command)

    async def ask(self) -> None:
        await self._nb.transact(Mutate("NB_Global", (), (("nb_cfg", "+=", 1),)))
        ((row,),) = await self._nb.transact(Select("NB_Global", (), ("nb_cfg",)))
        self._asked = row["nb_cfg"]

    async def in_sync(self, host: str, poll_s: float = 0.005) -> None:
        """What `ovn-nbctl --wait=hv sync` waits for: the chassis acknowledges a change once its switch has answered a barrier."""
        deadline = time.monotonic() + SYNC_LIMIT_S
        while time.monotonic() < deadline:
            (rows,) = await self._sb.transact(Select("Chassis_Private", (("name", "==", host),), ("nb_cfg",)))
            if rows and rows[0]["nb_cfg"] >= self._asked:
                return
            await asyncio.sleep(poll_s)
        raise TimeoutError(f"{host}'s ovn-controller has not acknowledged {self._asked} after {SYNC_LIMIT_S:.0f} s")

    def nbctl(self, *args: str) -> str:
        return run(["ovn-nbctl", f"--db={self.nb}", "--timeout=120", *args], env=self.env)

    def sbctl(self, *args: str) -> str:
        return run(["ovn-sbctl", f"--db={self.sb}", "--timeout=120", *args], env=self.env)

    async def close(self) -> None:
        """The lab's end takes the processes along."""
        await self._nb.close()
        await self._sb.close()

    def _create(self, vif: Vif) -> list[str]:
        who = f"{vif.mac} {' '.join(vif.addresses)}"
        return ["--", "lsp-add", vif.network, vif.id, "--", "lsp-set-addresses", vif.id, who,
                "--", "lsp-set-port-security", vif.id, who]  # fmt: skip

    async def create(self, vif: Vif) -> None:
        await asyncio.to_thread(self.nbctl, *self._create(vif)[1:])

    async def delete(self, vif: Vif) -> None:
        await asyncio.to_thread(self.nbctl, "lsp-del", vif.id)

    async def fill(self, network: Network, first: int, count: int) -> None:
        far = [f"far{n}" for n in range(20)]
        have = self.sbctl("--bare", "--columns=name", "list", "Chassis").split()
        for number, name in enumerate(far):
            if name not in have:
                self.sbctl("chassis-add", name, "geneve", f"10.99.1.{number + 1}")
        self.nbctl("--may-exist", "ls-add", network.name)
        # Told of so many piece by piece, a controller takes minutes for what it works out in seconds from its start.
        for host in self.pool.hosts:
            await self.stop_agent(host)
        vifs = [
            Vif(f"far{number}/0", network.name, mac_of(number), addresses=(address_of(number),))
            for number in range(first, first + count)
        ]
        for at in range(0, count, BATCH):
            await self._insert(network, vifs[at : at + BATCH])
        await asyncio.to_thread(self.nbctl, "--wait=sb", "sync")
        await self._bind({vif.id: far[int(vif.id[3:-2]) % 20] for vif in vifs})
        for host in self.pool.hosts:
            await self.start_agent(host)

    async def _insert(self, network: Network, vifs: Sequence[Vif]) -> None:
        """What `_create` does, without a process that first reads all there is."""
        who = {vif.id: frozenset({f"{vif.mac} {' '.join(vif.addresses)}"}) for vif in vifs}
        ports: list[Operation] = [
            Insert("Logical_Switch_Port", {"name": vif, "addresses": me, "port_security": me}, f"p{number}")
            for number, (vif, me) in enumerate(who.items())
        ]
        added = frozenset(NamedUuid(f"p{number}") for number in range(len(vifs)))
        add = Mutate("Logical_Switch", (("name", "==", network.name),), (("ports", "insert", added),))
        await self._nb.transact(*ports, add)

    async def _bind(self, where: dict[str, str]) -> None:
        """What `ovn-sbctl lsp-bind` does, for thousands in a second."""
        chassis, ports = await self._sb.transact(
            Select("Chassis", (), ("_uuid", "name")), Select("Port_Binding", (), ("_uuid", "logical_port"))
        )
        uuids = {row["name"]: row["_uuid"] for row in chassis}
        binds: list[Operation] = [
            Update("Port_Binding", by_uuid(row["_uuid"]), {"chassis": uuids[host], "up": True})
            for row in ports
            if (host := where.get(row["logical_port"])) is not None
        ]
        for at in range(0, len(binds), BATCH):
            await self._sb.transact(*binds[at : at + BATCH])

    async def migrate(self, vm: str, source: str, to: str, pause_s: float) -> None:
        await self.move(vm, source, to, pause_s)
        await asyncio.to_thread(self.lab.unplug, vm, source)

    async def move(self, vm: str, source: str, to: str, pause_s: float) -> None:
        """With two bindings, and activation by the guest's RARP (ovn-nb(5), requested-chassis, activation-strategy).
        Returns once the source has no binding; its ports are there still."""
        vifs = [vif.id for vif in self.lab.spec.guest(vm).vifs]

        def options(*values: str) -> list[str]:
            return [arg for vif in vifs for arg in ("--", "lsp-set-options", vif, *values)][1:]

        both = options(f"requested-chassis={source},{to}", "activation-strategy=rarp")
        prepared = [arg for vif in vifs for arg in ("--", "wait-until", "Port_Binding", vif, "additional_chassis!=[]")]
        await asyncio.to_thread(self.nbctl, *both)
        await asyncio.to_thread(self.lab.plug, vm, to)
        await asyncio.to_thread(self.sbctl, *prepared[1:])
        await asyncio.to_thread(self.nbctl, "--wait=hv", "sync")
        await asyncio.sleep(0.1)
        if pause_s:
            await asyncio.to_thread(self.lab.pause, vm)
            await asyncio.sleep(pause_s)
        await asyncio.to_thread(lambda: self.lab.run(vm, to, announce=True, resume=True))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(self.nbctl, "--wait=hv", *options(f"requested-chassis={to}"))

    async def settled(self) -> None:
        await self.ask()
        for host in self.pool.hosts:
            await self.in_sync(host, 0.1)


SYSTEMS: dict[str, type[System]] = {"vnet": Vnet, "OVN": Ovn}
_LABS = itertools.count()  # two of one system may be up at a time


@contextlib.asynccontextmanager
async def running(name: str, pool: PoolState) -> AsyncIterator[System]:
    """A lab with `name` on it, its VMs not started."""
    kind = SYSTEMS[name]
    lab = await asyncio.to_thread(
        lambda: Lab.up(
            pool, name=f"bench{os.getpid()}{name.lower()}{next(_LABS)}", driver=Driver.NETNS, daemons=kind is Vnet
        )
    )
    with lab:
        system = kind(lab, pool)
        await system.open()
        try:
            yield system
        finally:
            await system.close()
            await system.close_clients()
