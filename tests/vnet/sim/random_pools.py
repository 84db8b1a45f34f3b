"""Random small pools, as states."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from vnet.objects import (
    AddressSet,
    Direction,
    Host,
    IcmpType,
    LockingMode,
    Network,
    NetworkType,
    PolicyMode,
    Pool,
    PoolState,
    PortRange,
    Protocol,
    Rule,
    SecurityGroup,
    Trunk,
    Uplink,
    Verdict,
    Vif,
    Vm,
)

PORTS = (443, 53, 22)
CLIENTS = (PortRange(49152, 65535),)
ISOLATIONS = (None, None, None, "isolated", "community:red", "community:blue")
WHAT = (
    {},
    {"protocol": Protocol.ICMP},
    {"protocol": Protocol.ICMP, "icmp": (IcmpType.ECHO_REQUEST,)},
    {"protocol": Protocol.ICMP, "icmp": (IcmpType.TIMESTAMP_REQUEST,)},
    {"protocol": Protocol.TCP},
    {"protocol": Protocol.TCP, "ports": (PortRange(22, 443),)},
    {"protocol": Protocol.UDP, "ports": (PortRange(53, 53), PortRange(443, 443))},
)


SETS = {
    "few": AddressSet("few", ("10.0.0.1/32", "10.0.0.2/31", "fd00::2/128")),
    "more": AddressSet("more", ("10.0.0.0/29", "10.0.0.2/32")),
}


def random_groups(rng: Random) -> dict[str, SecurityGroup]:
    """Up to three security groups whose rules name each other, ranges of addresses, or nobody."""
    names = ["ga", "gb", "gc"][: rng.randint(0, 3)]
    found = {}
    for number, name in enumerate(names, 1):
        rules = tuple(
            Rule(
                f"r{n}", rng.choice(list(Direction)), rng.choice((Verdict.ALLOW, Verdict.ALLOW, Verdict.DROP, Verdict.REJECT)),
                **rng.choice(WHAT), log=rng.random() < 0.3,
                remote=tuple(sorted(rng.sample([*names, "10.0.0.0/30", "fd00::/126", *SETS], rng.randint(0, 2)))),
            )
            for n in range(rng.randint(0, 4))
        )  # fmt: skip
        mode = rng.choice((PolicyMode.ENFORCE, PolicyMode.ENFORCE, PolicyMode.MONITOR))
        stateful = rng.random() < 0.7
        if not stateful:
            rules = tuple(replace(rule, source_ports=rng.choice(((), CLIENTS)) if rule.ports else ()) for rule in rules)
        found[name] = SecurityGroup(
            name, number, rng.choice(list(Verdict)), rng.choice(list(Verdict)), rules, mode=mode, stateful=stateful
        )
    return found


def random_state(rng: Random) -> PoolState:
    """Up to three hosts, four networks and eight VIFs, some of them unplugged, unlocked, disabled or trunks."""
    hosts = {}
    for n in range(rng.randint(1, 3)):
        uplinks = (Uplink("up", ("eth1",)),) if rng.random() < 0.8 else ()
        hosts[f"h{n}"] = Host(f"h{n}", f"10.9.0.{n + 1}" if rng.random() < 0.9 else None, uplinks)
    networks, tags = {}, rng.sample((0, 10, 20, 30), 4)  # one VLAN of an uplink is one network
    for n in range(rng.randint(1, 4)):
        kind = rng.choice(list(NetworkType))
        vlan = kind is NetworkType.VLAN
        networks[f"n{n}"] = Network(
            f"n{n}", kind, n + 1, 1400, None if kind is NetworkType.INTERNAL else 100 + n,
            tags[n] if vlan else None, "up" if vlan else None,
        )  # fmt: skip
    vifs, vms, groups = {}, {}, random_groups(rng)
    for n in range(rng.randint(2, 8)):
        network = rng.choice(list(networks.values()))
        host = rng.choice([*hosts, *hosts, None])
        addresses = rng.choice(((f"10.0.0.{n + 1}",), (f"10.0.0.{n + 1}", f"fd00::{n + 1}"), (f"fd00::{n + 1}",), ()))
        trunk = Trunk(rng.choice(((), (10,)))) if network.tag == 0 and rng.random() < 0.3 else None
        mode = rng.choice((LockingMode.LOCKED, LockingMode.LOCKED, LockingMode.UNLOCKED, LockingMode.DISABLED))
        member = tuple(sorted(rng.sample(sorted(groups), rng.randint(0, len(groups))))) if trunk is None else ()
        vms[f"v{n}"] = Vm(f"v{n}", host)
        vifs[f"v{n}/0"] = Vif(
            f"v{n}/0",
            network.name,
            f"0a:00:00:00:00:{n + 1:02x}",
            vm=f"v{n}",
            addresses=addresses,
            locking_mode=mode,
            trunk=trunk,
            host=host,
            groups=member,
            isolation=rng.choice(ISOLATIONS) if trunk is None and mode is LockingMode.LOCKED else None,
        )
    return PoolState(Pool("p", 1600), hosts, networks, {}, vms, vifs, groups=groups, address_sets=SETS)
