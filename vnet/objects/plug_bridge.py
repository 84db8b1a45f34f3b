"""Plug bridges: where toolstacks plug VIFs that know networks by their bridges, as xapi and libvirt do.

One rule: no frame passes a bridge that hosts make. It has no flow, and the ports of VIFs are moved from it to br-int. One that is taken over is the toolstack's own:
hosts neither make nor change it, and take from it the ports of VIFs that the pool has on its network, and only those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Boolean, ListOf
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.words import HOST_REF, NETWORK_REF, OWNER, PLUG_BRIDGE_NAME, TITLE_KIND


@dataclass(frozen=True, slots=True)
class PlugBridge(Declared):
    """A bridge of each host into which a toolstack plugs the VIFs of a network."""

    NOUN: ClassVar[Noun] = Noun(
        "plug-bridge", "plug-bridges", "plug bridge", "PlugBridge", "plug_bridges",
        doc="Bridges into which toolstacks plug VIFs, by the bridge's name.", also=("bridges", "access-bridges"),
    )  # fmt: skip
    TITLE: ClassVar[str] = "a plug bridge"

    name: str = attr(PLUG_BRIDGE_NAME, "The bridge's name on every host.", set_by=SetBy.NAME)
    network: str = attr(
        NETWORK_REF,
        "The network whose VIFs are plugged there. A VIF's own network is what its row says.",
        change=(Disruption.NONE, "VIFs that are plugged stay on their networks"),
    )
    taken_over: bool = attr(
        Boolean(),
        "Whether the bridge is the toolstack's own, whose VIFs are taken over while they run: hosts do not make it. They take the ports of the network's VIFs from it, "
        "and put them back once it is taken over no more.",
        default=False,
        also=("taken-over-from", "shared"),
        change=(Disruption.FLOWS, "ports move between bridges, a frame or two each"),
    )
    hosts: frozenset[str] = attr(
        ListOf(HOST_REF, "a list of hosts", empty="leave 'hosts' out for all of them", as_set=True),
        "The hosts where it is so. Left out: every host.",
        default=frozenset(),
        change=(Disruption.FLOWS, "ports that were taken over move between bridges, a frame or two each"),
    )
    title: str | None = attr(
        TITLE_KIND,
        "What people choose it by; others may be called the same.",
        default=None,
        also=("label", "name-label", "description"),
        change=NOTHING,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    def on(self, host: str) -> bool:
        """Whether a host has it."""
        return not self.hosts or host in self.hosts

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return " ".join(filter(None, (f"for {self.network}", self.title)))

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        if self.taken_over:
            return Disruption.FLOWS, "the ports that were taken from there move back, a frame or two each"
        return Disruption.NONE, "the ports that were plugged there are on br-int"
