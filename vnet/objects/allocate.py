"""Allocation of numbers of networks and groups, tunnel keys, MACs and addresses for objects that leave them out.

One rule: the same pool state and object name give the same id; neither clock nor chance decides. An allocated id stays with its
object, because callers ask only for an id that the object lacks. An id that an object gives up goes to no other object in the
same step: hosts learn of a change one after the other, and a frame must not enter the wrong network in between. Nor does a tunnel
key go to another network while a host may still use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from vnet.objects.carriers import CARRIERS, ENCAPSULATIONS, Encapsulation, NetworkType
from vnet.objects.index import VifIndex
from vnet.objects.limits import MAX_NUMBER
from vnet.objects.mirror import TRANSPORT
from vnet.objects.state import PoolState
from vnet.objects.subnet import Range, Subnet

_RUNS = re.compile(r"[0-9]+|[^0-9]+")


class Exhausted(ValueError):
    """Nothing is left to allocate."""


class Ids:
    """The ids that a pool has left. Each method that allocates also takes, so that no two calls give the same."""

    def __init__(self, pool: str, state: PoolState, index: VifIndex) -> None:
        self._pool = pool
        self._index = index
        self._numbers = {network.number for network in state.networks.values()}
        self._group_numbers = {group.number for group in state.groups.values()}
        self._keys: dict[Encapsulation, set[int]] = {}
        for network in state.networks.values():
            if network.key is not None and (encapsulation := network.carrier.encapsulation) is not None:
                self._keys.setdefault(encapsulation, set()).add(network.key)
        self._keys.setdefault(TRANSPORT, set()).update(mirror.key for mirror in state.mirrors.values())
        numbers = state.still_used()
        for encapsulation in ENCAPSULATIONS:
            used = {number for medium, number in numbers if medium == encapsulation.name}
            self._keys.setdefault(encapsulation, set()).update(used)
        self._macs: set[str] = set()
        self._addresses: dict[str, set[str]] = {}
        self._next: dict[tuple[str, str, str | None], int] = {}  # per subnet, the next address to look at
        self._number: Iterator[int] = iter(range(1, MAX_NUMBER + 1))
        self._group_number: Iterator[int] = iter(range(1, MAX_NUMBER + 1))
        self._new_keys = {network_type: iter(carrier.new_keys) for network_type, carrier in CARRIERS.items()}
        for subnet in state.subnets.values():
            if subnet.gateway is not None:
                self.take_addresses(subnet.network, (subnet.gateway,))

    # --- ids that objects state ------------------------------------------------------------------

    def take_key(self, network_type: NetworkType, key: int | None) -> None:
        if key is not None and (encapsulation := network_type.carrier.encapsulation) is not None:
            self._keys.setdefault(encapsulation, set()).add(key)

    def take_mac(self, mac: str) -> None:
        self._macs.add(mac)

    def take_addresses(self, network: str, addresses: Iterable[str]) -> None:
        self._addresses.setdefault(network, set()).update(addresses)

    # --- ids for objects that leave them out -------------------------------------------------------

    def number(self) -> int:
        """A network number, the lowest that is free. Raises Exhausted."""
        return _take(self._number, self._numbers, "network numbers")

    def group_number(self) -> int:
        """A security group's number, the lowest that is free. Raises Exhausted."""
        return _take(self._group_number, self._group_numbers, "security group numbers")

    def key(self, network_type: NetworkType) -> int | None:
        """A key for the tunnels of a network of this type; None for a type without tunnels. Raises Exhausted."""
        encapsulation = network_type.carrier.encapsulation
        if encapsulation is None:
            return None
        taken = self._keys.setdefault(encapsulation, set())
        return _take(self._new_keys[network_type], taken, f"{network_type.value} keys")

    def mirror_key(self) -> int:
        """A key for the copies of a mirror, from the end of Geneve's where those of relays are. Raises Exhausted."""
        return _take(self._new_keys[NetworkType.VLAN], self._keys[TRANSPORT], "keys of mirrors")

    def mac(self, vif: str) -> str:
        """A locally administered unicast MAC (IEEE 802-2014 §8.4) that no VIF of the pool has, derived from pool and VIF id."""
        attempt = 0
        while True:
            digest = blake2b(f"{self._pool}\0{vif}\0{attempt}".encode(), digest_size=6).digest()
            octets = bytes([digest[0] & 0xFC | 0x02]) + digest[1:]
            mac = octets.hex(":")
            if mac not in self._macs and mac not in self._index.by_mac:
                self._macs.add(mac)
                return mac
            attempt += 1

    def address(self, subnet: Subnet) -> str:
        """The lowest free address of a subnet: not its gateway, nor its own or its broadcast address. Raises Exhausted."""
        span = Range.of(subnet)
        taken = self._addresses.setdefault(subnet.network, set())
        by_address, cursors = self._index.by_address, self._index.cursors
        cursor = (subnet.network, subnet.cidr, subnet.gateway)
        address_type = IPv4Address if span.version == 4 else IPv6Address
        full = cursor not in self._next  # whether VIFs of the pool have every address up to here
        for number in range(self._next.get(cursor, cursors.get(cursor, span.first)), span.last + 1):
            self._next[cursor] = number + 1
            address = str(address_type(number))
            if not span.usable(number) or (subnet.network, address) in by_address:
                if full:
                    cursors[cursor] = number + 1
                continue
            full = False
            if address not in taken:
                taken.add(address)
                return address
        raise Exhausted(f"no free address in subnet {subnet.name} ({subnet.cidr})")


def _take(candidates: Iterator[int], taken: set[int], ids: str) -> int:
    for candidate in candidates:
        if candidate not in taken:
            taken.add(candidate)
            return candidate
    raise Exhausted(f"no free {ids}")


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts web2 before web10, so that allocated ids follow the order people count in."""
    return [(int(word), word) if word.isdecimal() else (-1, word) for word in _RUNS.findall(name)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people count: web2 before web10."""
    return sorted(names, key=natural)
