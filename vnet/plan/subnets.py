"""The subnets of each network, as allocation asks for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from vnet.objects import Subnet
from vnet.topology.check_vms import range_of
from vnet.topology.view import Range


class SubnetsOf:
    """Subnets by network. `gateways`: the addresses of a network that are routers'."""

    def __init__(self, subnets: Mapping[str, Subnet]) -> None:
        self.gateways: dict[str, set[str]] = defaultdict(set)
        self._ranges: dict[str, list[Range]] = defaultdict(list)
        self._first: dict[
            tuple[str, int], Subnet
        ] = {}  # per address family, the first by name: where new ones come from
        for name in sorted(subnets):
            subnet = subnets[name]
            found = Range.of(name, subnet.cidr, subnet.gateway, None)
            self._ranges[subnet.network].append(found)
            self._first.setdefault((subnet.network, found.version), subnet)
            if subnet.gateway is not None:
                self.gateways[subnet.network].add(subnet.gateway)
        for ranges in self._ranges.values():
            ranges.sort(key=lambda r: (r.version, r.first))

    def usable(self, network: str, address: str) -> bool:
        """Whether a VIF of the network may have the address: in a subnet, and neither its router's nor reserved."""
        parsed = ip_address(address)
        found = range_of(self._ranges.get(network, []), parsed.version, int(parsed))
        return found is not None and not found.reserved(int(parsed)) and address not in self.gateways[network]

    def missing(self, network: str, addresses: Iterable[str]) -> list[Subnet]:
        """The subnets to take an address from: one per family that the network has and the addresses lack."""
        have = {ip_address(address).version for address in addresses}
        return [self._first[network, v] for v in (4, 6) if v not in have and (network, v) in self._first]
