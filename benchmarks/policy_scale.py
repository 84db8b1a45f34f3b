"""Policy at the sizes that OVN's developers publish: what one change costs a host, and what all of it, beside OVN here.

`python -m benchmarks.policy_scale [--runs 5] [--short]`. Three shapes:

groups: 2,000 VIFs of one network in 1,000 groups of two, each with one rule, which names one of 100 of them; a tenth of the VIFs is on the
host. A member more elsewhere, a rule rewritten, and the whole from the agent's start.
members: a group of 2,000 on other hosts, which a rule of the host's one VIF names. A member more or less, and a rule rewritten.
addresses: 3,500 rules of a VIF's groups, all of which name one address set of 450 addresses. An address more, and the whole.

Real: a host's `vnet agent` or ovn-controller, a process of its own, on an Open vSwitch with the dummy datapath; the pool
database, or OVN's two and northd. Time runs from just before the transaction until the host has said, by a barrier, that its
switch has it: the generation in its row, or what `ovn-nbctl --wait=hv sync` waits for. whole: the agent, or ovn-controller, is killed
and starts anew beside a switch that has every flow. recompute: ovn-controller is told to (`inc-engine/recompute`); our agent has no such command.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from statistics import median

from benchmarks.cold_start import HOST, add_ports, ask_status, start_agent
from benchmarks.common import Figure, Result, arguments, report
from benchmarks.large_pool import SCHEMA, host, network, vif
from benchmarks.ovn_scale import (
    SOUTHBOUND,
    Central,
    Northbound,
    alone,
    bind,
    chassis,
    port,
    settings,
    start_controller,
    until,
)
from benchmarks.processes import preferred
from ovsctl.appctl import call_sync
from ovsctl.ovsdb import (
    Insert,
    Monitor,
    Mutate,
    NamedUuid,
    Operation,
    OvsdbClient,
    Replica,
    Select,
    Update,
)
from tests.servers import Vswitchd, end, ovsdb_server, run_dir, vswitchd
from vnet.db.rows import SCHEMA_NAME, TABLE_OF, to_columns
from vnet.objects import (
    AddressSet,
    Binding,
    Direction,
    Pool,
    PortRange,
    Protocol,
    Rule,
    SecurityGroup,
    Verdict,
    Vif,
)

TIMEOUT_S = 600.0
HOSTS = 10
NAMED = 100  # groups that rules name: on one network at most 128 may be
FIGURES = (
    Figure("member_ms", "ms"),
    Figure("rule_ms", "ms"),
    Figure("address_ms", "ms"),
    Figure("whole_s", "s"),
    Figure("flows", "flows"),
)
RECOMPUTE = (Figure("recompute_s", "s"),)


@dataclass(frozen=True, slots=True)
class Shape:
    """VIFs with their groups; local: the numbers of those on the host."""

    name: str
    groups: tuple[SecurityGroup, ...]
    vifs: tuple[Vif, ...]
    local: tuple[int, ...]
    sets: tuple[AddressSet, ...] = ()

    def host_of(self, number: int) -> str:
        return HOST if number in self.local else host(1 + number % (HOSTS - 1)).name


def allow(name: str, tcp: int, remote: str) -> Rule:
    return Rule(name, Direction.INGRESS, Verdict.ALLOW, Protocol.TCP, (PortRange(tcp, tcp),), (remote,))


def of_groups(count: int) -> Shape:
    groups = tuple(
        SecurityGroup(f"g{n}", n + 1, rules=(allow("web", 443, f"g{n % min(count, NAMED)}"),)) for n in range(count)
    )
    local = tuple(range(0, 2 * count, 10))[: 2 * 100]
    vifs = tuple(replace(vif(n, 1), groups=(f"g{n // 2}",)) for n in range(2 * count))
    return Shape(f"{2 * count:,} VIFs, {count:,} groups of one rule", groups, vifs, local)


def of_members(count: int) -> Shape:
    web, db = SecurityGroup("web", 1), SecurityGroup("db", 2, rules=(allow("web", 3306, "web"),))
    members = [replace(vif(n, 1), groups=("web",)) for n in range(2, count + 2)]
    vifs = (replace(vif(0, 1), groups=("db",)), vif(1, 1), *members)
    return Shape(f"a group of {count:,}", (web, db), vifs, (0,))


def of_addresses(rules: int, addresses: int) -> Shape:
    each = 500
    groups = tuple(
        SecurityGroup(f"g{at // each}", at // each + 1,
                      rules=tuple(sorted((allow(f"r{n}", 1000 + n, "clients") for n in range(at, min(at + each, rules))), key=lambda rule: rule.name)))
        for at in range(0, rules, each)
    )  # fmt: skip
    clients = AddressSet("clients", tuple(sorted(f"10.200.{n >> 8}.{n & 255}/32" for n in range(addresses))))
    groups = tuple(replace(group, address_sets=frozenset({"clients"})) for group in groups)
    vifs = (replace(vif(0, 1), groups=tuple(group.name for group in groups)), vif(1, 1))
    return Shape(f"{rules:,} rules by {addresses} addresses", groups, vifs, (0,), (clients,))


class System:
    """A host of a pool, up and programmed."""

    async def member(self, number: int) -> None:
        """A VIF elsewhere joins a group that rules here name, or leaves it."""

    async def rule(self, number: int) -> None:
        """A rule of a group here has another port."""

    async def address(self, number: int) -> None:
        """The set has an address more."""

    async def whole(self) -> None:
        """What programs the switch starts anew."""

    async def recompute(self) -> None:
        """It works out everything once more."""


class Vnet(System):
    def __init__(
        self,
        shape: Shape,
        client: OvsdbClient,
        agents: Replica,
        switch: Vswitchd,
        agent: Callable[[], subprocess.Popen[bytes]],
    ) -> None:
        self.shape, self.client, self.agents, self.switch, self.start = shape, client, agents, switch, agent
        self.process = agent()

    async def settled(self, *operations: Operation) -> None:
        *_, rows = await self.client.transact(
            *operations, Mutate("Pool", (), (("generation", "+=", 1),)), Select("Pool", (), ("generation",))
        )
        wanted = rows[0]["generation"]
        await until(
            self.agents,
            lambda: any(row["generation"] >= wanted for row in self.agents["Agent"].values()),
            TIMEOUT_S,
        )

    async def member(self, number: int) -> None:
        target = named_here(self.shape)
        elsewhere = self.shape.vifs[outsider(self.shape)]
        groups = frozenset({*elsewhere.groups, target} if number % 2 else {*elsewhere.groups})
        await self.settled(
            Update("Vif", (("id", "==", elsewhere.id),), {"groups": groups}),
            Update("Binding", (("vif", "==", elsewhere.id),), {"groups": groups}),
        )

    async def rule(self, number: int) -> None:
        group = here(self.shape)
        changed = replace(
            group, rules=(replace(group.rules[0], ports=(PortRange(7000 + number, 7000 + number),)), *group.rules[1:])
        )
        await self.settled(
            Update(TABLE_OF[SecurityGroup], (("name", "==", group.name),), {"rules": to_columns(changed)["rules"]})
        )

    async def address(self, number: int) -> None:
        (clients,) = self.shape.sets
        more = replace(clients, addresses=(*clients.addresses, f"10.250.0.{number}/32"))
        await self.settled(
            Update(TABLE_OF[AddressSet], (("name", "==", "clients"),), {"addresses": to_columns(more)["addresses"]})
        )

    async def whole(self) -> None:
        end(self.process)
        self.process = self.start()
        await self.in_sync()

    async def in_sync(self) -> None:
        """The agent has read every flow back, compared and made good."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    if (await ask_status(self.switch.server.dir / "agent.sock"))["switch"]:
                        return
                except (OSError, ValueError, KeyError):
                    pass
                await asyncio.sleep(0.005)


def here(shape: Shape) -> SecurityGroup:
    """A group that a VIF on the host is in."""
    return next(group for group in shape.groups if group.name in shape.vifs[shape.local[1 % len(shape.local)]].groups)


def named_here(shape: Shape) -> str:
    """A group that a rule of a VIF on the host names."""
    return here(shape).rules[0].remote[0]


def outsider(shape: Shape) -> int:
    """A VIF elsewhere that is in no group of these."""
    return next(n for n, it in enumerate(shape.vifs) if n not in shape.local and named_here(shape) not in it.groups)


def flow_count(switch: Vswitchd) -> int:
    found = re.search(r"flow_count=(\d+)", switch.ofctl("dump-aggregate", "br-int"))
    return int(found[1]) if found else 0


@contextmanager
def ports(shape: Shape) -> Iterator[Vswitchd]:
    with vswitchd() as switch:
        add_ports(switch, list(shape.local))
        yield switch


def contents(shape: Shape) -> Iterator[Operation]:
    yield Insert("Pool", to_columns(Pool("policy")))
    values: list[object] = [*map(host, range(HOSTS)), network(0), *shape.groups, *shape.sets]
    for value in values:
        row = to_columns(value)  # type: ignore[arg-type]
        yield Insert(TABLE_OF[type(value)], row)  # type: ignore[index]
    for number, it in enumerate(shape.vifs):
        at = shape.host_of(number)
        if at == HOST:
            yield Insert("Vif", to_columns(replace(it, host=HOST)))
        else:
            yield Insert("Vif", to_columns(replace(it, epoch=1)))
            there = Binding(it.id, at, it.network, it.mac, 1, addresses=it.addresses, groups=it.groups, ready=True)
            yield Insert("Binding", to_columns(there))


@asynccontextmanager
async def vnet(shape: Shape) -> AsyncIterator[Vnet]:
    with ExitStack() as stack:
        pool = stack.enter_context(ovsdb_server(SCHEMA))
        switch = stack.enter_context(ports(shape))
        async with OvsdbClient(pool.remote, SCHEMA_NAME) as client:
            await client.transact(*contents(shape), timeout_s=60)
            stack.enter_context(preferred(d.process.pid if d.process else None for d in (pool, switch, switch.server)))
            agents = await client.monitor(
                {"Agent": Monitor(columns=("host", "generation"), where=(("host", "==", HOST),))}
            )
            system = Vnet(shape, client, agents, switch, lambda: start_agent(pool, switch))
            try:
                await system.in_sync()
                bindings = await client.monitor({"Binding": Monitor(columns=("ready",), where=(("host", "==", HOST),))})
                await until(
                    bindings,
                    lambda: sum(r["ready"] for r in bindings["Binding"].values()) == len(shape.local),
                    TIMEOUT_S,
                )
                yield system
            finally:
                end(system.process, signal.SIGTERM)


class Ovn(System):
    def __init__(
        self, shape: Shape, nb: Northbound, hosts: Replica, switch: Vswitchd, controller: subprocess.Popen[bytes]
    ) -> None:
        self.shape, self.nb, self.hosts, self.switch, self.process = shape, nb, hosts, switch, controller

    async def settled(self, *operations: Operation) -> None:
        """What `ovn-nbctl --wait=hv sync` waits for, of this host."""
        *_, rows = await self.nb.client.transact(
            *operations,
            Mutate("NB_Global", (), (("nb_cfg", "+=", 1),)),
            Select("NB_Global", (), ("nb_cfg",)),
            timeout_s=TIMEOUT_S,
        )
        wanted = rows[0]["nb_cfg"]
        await until(
            self.hosts,
            lambda: any(row["nb_cfg"] >= wanted for row in self.hosts["Chassis_Private"].values()),
            TIMEOUT_S,
        )

    async def _row(self, table: str, column: str, value: str) -> object:
        ((row,),) = await self.nb.client.transact(Select(table, ((column, "==", value),), ("_uuid",)))
        return row["_uuid"]

    async def member(self, number: int) -> None:
        added = frozenset({await self._row("Logical_Switch_Port", "name", self.shape.vifs[outsider(self.shape)].id)})
        how = "insert" if number % 2 else "delete"
        await self.settled(Mutate("Port_Group", (("name", "==", named_here(self.shape)),), (("ports", how, added),)))

    async def rule(self, number: int) -> None:
        group = here(self.shape)
        rule = replace(group.rules[0], ports=(PortRange(7000 + number, 7000 + number),))
        await self.settled(
            Update("ACL", (("name", "==", f"{group.name}.{rule.name}"),), {"match": acl_match(group, rule)})
        )

    async def address(self, number: int) -> None:
        await self.settled(
            Mutate(
                "Address_Set",
                (("name", "==", "clients"),),
                (("addresses", "insert", frozenset({f"10.201.0.{number}"})),),
            )
        )

    async def whole(self) -> None:
        end(self.process)
        self.process = start_controller(self.switch.server, "controller")
        await self.settled()

    async def recompute(self) -> None:
        call_sync(self.switch.server.dir / f"ovn-controller.{self.process.pid}.ctl", "inc-engine/recompute")
        await self.settled()


def acl_match(group: SecurityGroup, rule: Rule) -> str:
    (remote,) = rule.remote
    name = remote if remote == "clients" else f"{remote}_ip4"
    return f"outport == @{group.name} && ip4.src == ${name} && tcp.dst == {rule.ports[0].first}"


def northbound(shape: Shape) -> Iterator[Operation]:
    """The switch with its ports, and a port group for each group, with an ACL for each rule and one for what no rule allows."""
    rows = [port(replace(it, host=HOST) if n in shape.local else it, f"p{n}") for n, it in enumerate(shape.vifs)]
    yield from rows
    yield Insert("Logical_Switch", {"name": "net0", "ports": frozenset(NamedUuid(f"p{n}") for n in range(len(rows)))})
    for found in shape.sets:
        yield Insert(
            "Address_Set", {"name": found.name, "addresses": frozenset(a.removesuffix("/32") for a in found.addresses)}
        )
    ids = count()
    for group in shape.groups:
        acls = []
        for rule in group.rules:
            acls.append(f"a{next(ids)}")
            row = {
                "name": f"{group.name}.{rule.name}",
                "priority": 1002,
                "direction": "to-lport",
                "match": acl_match(group, rule),
                "action": "allow-related",
            }
            yield Insert("ACL", row, acls[-1])
        acls.append(f"a{next(ids)}")
        default = {
            "priority": 1001,
            "direction": "to-lport",
            "match": f"outport == @{group.name} && ip",
            "action": "allow-related" if group.ingress is Verdict.ALLOW else "drop",
        }
        yield Insert("ACL", default, acls[-1])
        members = frozenset(NamedUuid(f"p{n}") for n, it in enumerate(shape.vifs) if group.name in it.groups)
        yield Insert("Port_Group", {"name": group.name, "ports": members, "acls": frozenset(map(NamedUuid, acls))})


@asynccontextmanager
async def ovn(shape: Shape) -> AsyncIterator[Ovn]:
    async with AsyncExitStack() as stack:
        central = stack.enter_context(Central(stack.enter_context(run_dir())))
        switch = stack.enter_context(ports(shape))
        nb = await stack.enter_async_context(central.northbound())
        sb = await stack.enter_async_context(OvsdbClient(central.sb.remote, SOUTHBOUND))
        for group in chassis(host(n) for n in range(1, HOSTS)):
            await sb.transact(*group)
        central.start_northd()
        await nb.settled(*northbound(shape), timeout_s=TIMEOUT_S)
        await bind(sb, {it.id: shape.host_of(n) for n, it in enumerate(shape.vifs) if n not in shape.local})
        ids = settings(HOST, host(0).address, central.sb.remote)
        switch.server.vsctl("set", "open_vswitch", ".", *(f"external_ids:{k}={v}" for k, v in ids.items()))
        daemons = [d.process for d in (central.nb, central.sb, switch, switch.server)]
        stack.enter_context(preferred([*(d.pid for d in daemons if d is not None), *central.northd_pids()]))
        hosts = await sb.monitor(
            {"Chassis_Private": Monitor(columns=("name", "nb_cfg"), where=(("name", "==", HOST),))}
        )
        system = Ovn(shape, nb, hosts, switch, start_controller(switch.server, "controller"))
        try:
            await system.settled()
            yield system
        finally:
            end(system.process)


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.monotonic()
    await work()
    return time.monotonic() - began


async def measure(system: Vnet | Ovn, shape: Shape, runs: int) -> dict[str, float]:
    """Medians of the changes that the shape has; the first of each pays for what is loaded once and is not counted."""
    found: dict[str, float] = {}
    changes = {"address_ms": system.address} if shape.sets else {"member_ms": system.member, "rule_ms": system.rule}
    for key, change in changes.items():
        taken = [await timed(lambda n=n, change=change: change(n + 1)) for n in range(runs + 1)]
        found[key] = median(taken[1:]) * 1000
    found["whole_s"] = median([await timed(system.whole) for _ in range(max(1, runs // 2))])
    if isinstance(system, Ovn):
        found["recompute_s"] = median([await timed(system.recompute) for _ in range(max(1, runs // 2))])
    found["flows"] = flow_count(system.switch)
    return found


async def compared(shape: Shape, runs: int, systems: Sequence[str]) -> list[Result]:
    medians: dict[str, dict[str, float]] = {}
    if "vnet" in systems:
        async with vnet(shape) as ours:
            medians["vnet"] = await measure(ours, shape, runs)
    if "OVN" in systems:
        async with ovn(shape) as theirs:
            medians["OVN"] = await measure(theirs, shape, runs)
    keys = set.intersection(*(set(found) for found in medians.values()))
    result = Result(shape.name, tuple(figure for figure in FIGURES if figure.key in keys), medians, runs)
    return [result, *([alone("OVN", RECOMPUTE, [medians["OVN"]])] if "OVN" in medians else [])]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--short", action="store_true", help="a tenth of each shape, twice")
    parser.add_argument("--systems", nargs="+", choices=["vnet", "OVN"], default=["vnet", "OVN"])
    parser.add_argument(
        "--shapes", nargs="+", choices=["groups", "members", "addresses"], default=["groups", "members", "addresses"]
    )
    options = parser.parse_args()
    part, runs = (10, 2) if options.short else (1, options.runs)
    shapes = {
        "groups": lambda: of_groups(1000 // part),
        "members": lambda: of_members(2000 // part),
        "addresses": lambda: of_addresses(3500 // part, 450),
    }
    found = [asyncio.run(compared(shapes[name](), runs, options.systems)) for name in options.shapes]
    report([result for results in found for result in results], options.json)


if __name__ == "__main__":
    main()
