"""Which address sets the other end of a packet is in: the flows of each network here whose rules name sets.

One rule: rules match a set's bit in REG_PEER, as they do a group's, so a change of a set changes these flows and no rule's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_network

from ovsctl.openflow import Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import ETH_IPV4, ETH_IPV6, Fields, Flows
from vnet.compile.pipeline import REG_PEER, Category, Table, cookie
from vnet.compile.security import SIDES, Side
from vnet.compile.view import HostView
from vnet.objects.limits import MAX_ADDRESSES_OF_NETWORK

LONGEST_FIRST = 100  # priority of a range of length 0
BITS = {4: 32, 6: 128}
SIDE_OF = {side.sets: side for side in SIDES}
Range = tuple[int, int, int]  # IP version, prefix length, first address


def set_flows(view: HostView, name: str, _: str) -> Flows:
    """The flows of the address sets that rules on a network here name: for each range the sets that contain it."""
    network = view.network(name)
    if network is None or network.segment is None:
        return ()
    bits = view.peer_bits(name)
    direct: dict[Range, int] = defaultdict(int)
    asked = 0
    for named in view.named_sets(name):
        asked |= 1 << bits[named]
        for cidr in view.addresses_of(named):
            direct[_range(cidr)] |= 1 << bits[named]
    mark = cookie(Category.ADDRESS_SET, name)
    return tuple(
        _flow(table, mark, network.segment, net, found, asked)
        for net, found in _containing(direct)
        for table in SIDE_OF
    )


# A change of a set compiles all sets of its network: what did not change is not made again.
@lru_cache(maxsize=2 * MAX_ADDRESSES_OF_NETWORK)
def _range(cidr: str) -> Range:
    net = ip_network(cidr)
    return net.version, net.prefixlen, int(net.network_address)


@lru_cache(maxsize=2 * MAX_ADDRESSES_OF_NETWORK)
def _flow(table: Table, mark: int, segment: int, net: Range, found: int, asked: int) -> Flow:
    match = Match(metadata=segment, **_within(SIDE_OF[table], net))
    set_bits = act.SetField(REG_PEER, (found, asked))
    return Flow(table=table, priority=LONGEST_FIRST + net[1], cookie=mark, match=match, actions=(set_bits,))


def _containing(direct: dict[Range, int]) -> Iterator[tuple[Range, int]]:
    """Each range with the bits of all ranges that contain it: a packet meets the longest one only."""
    masks = {(version, length): _mask(version, length) for version, length, _ in direct}
    shorter = {key: [(k[1], mask) for k, mask in masks.items() if k[0] == key[0] and k[1] <= key[1]] for key in masks}
    for version, length, address in sorted(direct):
        found = 0
        for outer, mask in shorter[version, length]:
            found |= direct.get((version, outer, address & mask), 0)
        yield (version, length, address), found


def _mask(version: int, length: int) -> int:
    return (1 << BITS[version]) - (1 << BITS[version] - length)


def _within(side: Side, net: Range) -> Fields:
    version, length, address = net
    eth_type, field = (ETH_IPV4, side.ip) if version == 4 else (ETH_IPV6, side.ipv6)
    if not length:
        return {"eth_type": eth_type}
    return {"eth_type": eth_type, field: (address, _mask(version, length))}
