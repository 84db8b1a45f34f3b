"""Subnets: ranges of addresses on a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import NotYet
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.words import ADDRESS, CIDR, NAME_KIND, NETWORK_REF, OWNER

_FOLLOW: Cost = (Disruption.NONE, "VIFs whose addresses follow are listed themselves")


@dataclass(frozen=True, slots=True)
class Subnet(Declared):
    """A range of addresses on a network; VIFs that leave theirs out get one from it."""

    NOUN: ClassVar[Noun] = Noun("subnet", "subnets", "subnet", "Subnet", "subnets", doc="Address ranges, by name.")
    TITLE: ClassVar[str] = "a subnet"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    network: str = attr(NETWORK_REF, "The network it is on.", change=_FOLLOW)
    cidr: str = attr(CIDR, "The range, as ADDRESS/LENGTH.", also=("range", "prefix", "subnet"), change=_FOLLOW)
    gateway: str | None = attr(
        ADDRESS,
        "The router's address in it; never given to a VIF.",
        default=None,
        also=("router",),
        change=(Disruption.NONE, "only kept from being given to a VIF"),
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    UNSUPPORTED: ClassVar[Mapping[str, NotYet]] = {"dhcp": NotYet("DHCP comes with the address services")}

    def flaws(self) -> Iterator[Flaw]:
        if self.gateway is None:
            return
        span, address = Range.of(self), ip_address(self.gateway)
        if address.version != span.version or not span.first <= int(address) <= span.last:
            yield Flaw(
                "outside-subnet", "gateway", f"gateway {self.gateway} is not in {self.cidr}", relies_on=("cidr",)
            )
        elif why_not := span.reserved(int(address)):
            message = f"gateway {self.gateway} is {why_not} ({self.cidr})"
            yield Flaw("reserved-address", "gateway", message, "any other address of it", relies_on=("cidr",))

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return f"{self.cidr} on {self.network}" + (f" gateway {self.gateway}" if self.gateway else "")

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return NOTHING


@dataclass(frozen=True, slots=True)
class Range:
    """A subnet's addresses as numbers. first and last are included."""

    subnet: Subnet
    version: int
    first: int
    last: int
    gateway: int | None

    @classmethod
    def of(cls, subnet: Subnet) -> Range:
        net = ip_network(subnet.cidr)
        gateway = None if subnet.gateway is None else int(ip_address(subnet.gateway))
        return cls(subnet, net.version, int(net.network_address), int(net.broadcast_address), gateway)

    def reserved(self, address: int) -> str:
        """Why no interface may have an address of the range, '' if one may (RFC 1122 §3.2.1.3, RFC 4291 §2.6.1)."""
        if self.last - self.first < 2:
            return ""
        if address == self.first:
            return "the subnet's own address"
        return "the subnet's broadcast address" if self.version == 4 and address == self.last else ""

    def usable(self, address: int) -> bool:
        """Whether a VIF may have an address of the range."""
        return self.first <= address <= self.last and address != self.gateway and not self.reserved(address)
