"""Address sets: ranges of addresses under a name, which rules of security groups name as the other side.

One rule: a change of a set changes no rule: what a packet's peer is in is looked up once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import ListOf
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage, plugged
from vnet.objects.limits import MAX_ADDRESSES_OF_SET
from vnet.objects.words import ANY_RANGE, GROUP_NAME, OWNER


def _changed(usage: Usage, _: str, old: AddressSet, __: AddressSet) -> Cost:
    if not (count := usage.of_address_set[old.name]):
        return Disruption.NONE, "no rule of a VIF that is plugged names it"
    return Disruption.VIF, f"connections that rules then forbid by it are cut: {plugged(count)}"


@dataclass(frozen=True, slots=True)
class AddressSet(Declared):
    """Ranges of addresses, of both IP versions."""

    NOUN: ClassVar[Noun] = Noun(
        "address-set", "address-sets", "address set", "AddressSet", "address_sets",
        doc="Ranges of addresses that rules name, by name.", replaced=True, held=True,
        also=("ip-sets", "ipsets", "prefix-lists", "address-groups"),
    )  # fmt: skip
    TITLE: ClassVar[str] = "an address set"
    SHORT: ClassVar[str] = "addresses"

    name: str = attr(GROUP_NAME, "Its name; no security group has the same.", set_by=SetBy.NAME)
    addresses: tuple[str, ...] = attr(
        ListOf(ANY_RANGE, "a list of CIDRs", ordered=True, most=MAX_ADDRESSES_OF_SET),
        "Its ranges; a document may write them in place of the set's map.",
        default=(),
        also=("cidrs", "ranges", "members", "entries"),
        change=_changed,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME, change=NOTHING
    )  # fmt: skip

    def flaws(self) -> Iterator[Flaw]:
        yield from ()

    def has(self, address: str) -> bool:
        """Whether an address is in one of its ranges."""
        found = ip_address(address)
        return any(net.version == found.version and found in net for net in map(ip_network, self.addresses))

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return f"{len(self.addresses)} range{'s' if len(self.addresses) != 1 else ''}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return (Disruption.NONE, "no rule names it")
