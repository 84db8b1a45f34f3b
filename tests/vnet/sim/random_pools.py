"""Random small pools, as states."""

from __future__ import annotations

from random import Random

from vnet.model import (
    Host,
    LockingMode,
    Network,
    NetworkType,
    Pool,
    PoolState,
    Trunk,
    Uplink,
    Vif,
    Vm,
)


def random_state(rng: Random) -> PoolState:
    """Up to three hosts, four networks and eight VIFs, some of them unplugged, unlocked, disabled or trunks."""
    hosts = {}
    for n in range(rng.randint(1, 3)):
        uplinks = (Uplink("up", ("eth1",)),) if rng.random() < 0.8 else ()
        hosts[f"h{n}"] = Host(f"h{n}", f"10.9.0.{n + 1}" if rng.random() < 0.9 else None, uplinks)
    networks = {}
    for n in range(rng.randint(1, 4)):
        kind = rng.choice(list(NetworkType))
        vlan = kind is NetworkType.VLAN
        networks[f"n{n}"] = Network(
            f"n{n}", kind, n + 1, 1400, None if kind is NetworkType.INTERNAL else 100 + n,
            rng.choice((0, 10, 20)) if vlan else None, "up" if vlan else None,
        )  # fmt: skip
    vifs, vms = {}, {}
    for n in range(rng.randint(2, 8)):
        network = rng.choice(list(networks.values()))
        host = rng.choice([*hosts, *hosts, None])
        addresses = rng.choice(((f"10.0.0.{n + 1}",), (f"10.0.0.{n + 1}", f"fd00::{n + 1}"), (f"fd00::{n + 1}",), ()))
        trunk = Trunk(rng.choice(((), (10,)))) if network.tag == 0 and rng.random() < 0.3 else None
        mode = rng.choice((LockingMode.LOCKED, LockingMode.LOCKED, LockingMode.UNLOCKED, LockingMode.DISABLED))
        vms[f"v{n}"] = Vm(f"v{n}", host)
        vifs[f"v{n}/0"] = Vif(
            f"v{n}/0", network.name, f"0a:00:00:00:00:{n + 1:02x}", f"v{n}", 0, addresses, mode, trunk, host
        )
    return PoolState(Pool("p", 1600), hosts, networks, {}, vms, vifs)
