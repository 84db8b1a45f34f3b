"""Plug bridges: where toolstacks plug VIFs that know networks by their bridges, as xapi and libvirt do.

One rule: no frame passes such a bridge. Each host has it, without a flow, and moves the ports of VIFs from it to br-int.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.words import NETWORK_REF, OWNER, PLUG_BRIDGE_NAME, TITLE_KIND


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

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return " ".join(filter(None, (f"for {self.network}", self.title)))

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return Disruption.NONE, "the ports that were plugged there are on br-int"
