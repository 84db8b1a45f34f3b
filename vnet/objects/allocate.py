"""Numbers of networks and groups, keys, MACs and addresses for objects that leave them out. One rule: the same pool gives the same ids.

No clock, no chance: what is allocated follows from the pool's state and the object's name alone. An id that was allocated
stays with its object because callers ask only for what an object does not have yet, and an id that an object just gave up is
not given to another in the same step: hosts learn of a change one after the other, and frames must not meet the wrong network.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import ip_network

from vnet.objects.security import MAX_NUMBER
from vnet.objects.state import PoolState
from vnet.objects.values import MAX_GRE_KEY, MAX_VNI, NetworkType, Subnet

_RUNS = re.compile(r"[0-9]+|[^0-9]+")
FIRST_KEY = 5001  # smaller ones are left to people, who like them small

# Whose keys must differ: a VLAN network's relay key is a Geneve VNI, for its tunnels are Geneve.
KEY_SPACE = {
    NetworkType.VXLAN: NetworkType.VXLAN,
    NetworkType.GRE: NetworkType.GRE,
    NetworkType.GENEVE: NetworkType.GENEVE,
    NetworkType.VLAN: NetworkType.GENEVE,
}


class Exhausted(ValueError):
    """Nothing is left to allocate."""


class Ids:
    """What is taken in a pool. Each method that allocates also takes, so that no two calls give the same."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.numbers: set[int] = set()
        self.group_numbers: set[int] = set()
        self.keys: dict[NetworkType, set[int]] = defaultdict(set)
        self.macs: set[str] = set()
        self.addresses: dict[str, set[str]] = defaultdict(set)
        self._number: Iterator[int] = iter(range(1, MAX_VNI + 1))
        self._group_number: Iterator[int] = iter(range(1, MAX_NUMBER + 1))
        self._keys = {
            NetworkType.VXLAN: iter(range(FIRST_KEY, MAX_VNI + 1)),
            NetworkType.GENEVE: iter(range(FIRST_KEY, MAX_VNI + 1)),
            NetworkType.GRE: iter(range(FIRST_KEY, MAX_GRE_KEY + 1)),
            NetworkType.VLAN: iter(range(MAX_VNI, 0, -1)),  # from the other end, where no person looks for one
        }
        self._addresses: dict[str, Iterator[str]] = {}

    @classmethod
    def of(cls, pool: str, state: PoolState) -> Ids:
        """What a pool's objects have, whoever made them."""
        ids = cls(pool)
        for net in state.networks.values():
            ids.numbers.add(net.number)
            if net.key is not None:
                ids.keys[KEY_SPACE[net.type]].add(net.key)
        ids.group_numbers.update(group.number for group in state.groups.values())
        for vif in state.vifs.values():
            ids.macs.add(vif.mac)
            ids.addresses[vif.network].update(vif.addresses)
        for subnet in state.subnets.values():
            if subnet.gateway is not None:
                ids.addresses[subnet.network].add(subnet.gateway)
        return ids

    def number(self) -> int:
        """A network number, the lowest that is free. Raises Exhausted."""
        return _take(self._number, self.numbers, "network numbers")

    def group_number(self) -> int:
        """A security group's number, the lowest that is free. Raises Exhausted."""
        return _take(self._group_number, self.group_numbers, "security group numbers")

    def key(self, kind: NetworkType) -> int | None:
        """A VNI or GRE key; for a VLAN network that of its relay, for an internal one None. Raises Exhausted."""
        if kind is NetworkType.INTERNAL:
            return None
        return _take(self._keys[kind], self.keys[KEY_SPACE[kind]], f"{kind.value} keys")

    def mac(self, vif: str) -> str:
        """A locally administered unicast MAC (IEEE 802-2014 §8.4) that no VIF of the pool has, derived from pool and VIF id."""
        attempt = 0
        while True:
            digest = blake2b(f"{self.pool}\0{vif}\0{attempt}".encode(), digest_size=6).digest()
            octets = bytes([digest[0] & 0xFC | 0x02]) + digest[1:]
            mac = octets.hex(":")
            if mac not in self.macs:
                self.macs.add(mac)
                return mac
            attempt += 1

    def address(self, subnet: Subnet) -> str:
        """The lowest free address of a subnet: not its gateway, nor its own or its broadcast address. Raises Exhausted."""
        taken = self.addresses[subnet.network]
        free = self._addresses.setdefault(subnet.name, _usable(subnet.cidr))
        for address in free:
            if address not in taken and address != subnet.gateway:
                taken.add(address)
                return address
        raise Exhausted(f"no free address in subnet {subnet.name} ({subnet.cidr})")


def _take(candidates: Iterator[int], taken: set[int], what: str) -> int:
    for candidate in candidates:
        if candidate not in taken:
            taken.add(candidate)
            return candidate
    raise Exhausted(f"no free {what}")


def _usable(cidr: str) -> Iterator[str]:
    """The addresses an interface may have (RFC 1122 §3.2.1.3, RFC 4291 §2.6.1, RFC 3021 and RFC 6164 for the tiny ones)."""
    net = ip_network(cidr)
    first, last = int(net.network_address), int(net.broadcast_address)
    if last - first >= 2:
        first += 1
        last -= net.version == 4
    kind = type(net.network_address)
    return (str(kind(number)) for number in range(first, last + 1))


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts web2 before web10, so that allocated ids follow the order people count in."""
    return [(int(word), word) if word.isdecimal() else (-1, word) for word in _RUNS.findall(name)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people count: web2 before web10."""
    return sorted(names, key=natural)
