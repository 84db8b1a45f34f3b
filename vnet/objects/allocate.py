"""Allocation of numbers of networks and groups, tunnel keys, MACs and addresses for objects that leave them out.

One rule: the same pool state and object name give the same id; neither clock nor chance decides. An allocated id stays with its
object, because callers ask only for an id that the object lacks. An id that an object gives up goes to no other object in the
same step: hosts learn of a change one after the other, and a frame must not enter the wrong network in between.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import ip_network

from vnet.objects.carriers import CARRIERS, Encapsulation, NetworkType
from vnet.objects.security import MAX_NUMBER
from vnet.objects.state import PoolState
from vnet.objects.values import MAX_NETWORK_NUMBER, Subnet

_RUNS = re.compile(r"[0-9]+|[^0-9]+")


class Exhausted(ValueError):
    """Nothing is left to allocate."""


class Ids:
    """What is taken in a pool. Each method that allocates also takes, so that no two calls give the same."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.numbers: set[int] = set()
        self.group_numbers: set[int] = set()
        self.keys: dict[Encapsulation, set[int]] = defaultdict(set)
        self.macs: set[str] = set()
        self.addresses: dict[str, set[str]] = defaultdict(set)
        self._number: Iterator[int] = iter(range(1, MAX_NETWORK_NUMBER + 1))
        self._group_number: Iterator[int] = iter(range(1, MAX_NUMBER + 1))
        self._keys = {network_type: iter(carrier.new_keys) for network_type, carrier in CARRIERS.items()}
        self._addresses: dict[str, Iterator[str]] = {}

    @classmethod
    def of(cls, pool: str, state: PoolState) -> Ids:
        """What a pool's objects have, whoever made them."""
        ids = cls(pool)
        for network in state.networks.values():
            ids.numbers.add(network.number)
            if network.key is not None and (encapsulation := network.carrier.encapsulation) is not None:
                ids.keys[encapsulation].add(network.key)
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

    def key(self, network_type: NetworkType) -> int | None:
        """A key for the tunnels of a network of this type; None for a type without tunnels. Raises Exhausted."""
        encapsulation = network_type.carrier.encapsulation
        if encapsulation is None:
            return None
        return _take(self._keys[network_type], self.keys[encapsulation], f"{network_type.value} keys")

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


def _take(candidates: Iterator[int], taken: set[int], ids: str) -> int:
    for candidate in candidates:
        if candidate not in taken:
            taken.add(candidate)
            return candidate
    raise Exhausted(f"no free {ids}")


def _usable(cidr: str) -> Iterator[str]:
    """The addresses an interface may have (RFC 1122 §3.2.1.3, RFC 4291 §2.6.1, RFC 3021 and RFC 6164 for the tiny ones)."""
    net = ip_network(cidr)
    first, last = int(net.network_address), int(net.broadcast_address)
    if last - first >= 2:
        first += 1
        last -= net.version == 4
    address = type(net.network_address)
    return (str(address(number)) for number in range(first, last + 1))


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts web2 before web10, so that allocated ids follow the order people count in."""
    return [(int(word), word) if word.isdecimal() else (-1, word) for word in _RUNS.findall(name)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people count: web2 before web10."""
    return sorted(names, key=natural)
