"""Virtual machines: VIFs that move as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.words import HOST_REF, NAME_KIND, OWNER


@dataclass(frozen=True, slots=True)
class Vm(Declared):
    """A virtual machine: VIFs that move as one."""

    NOUN: ClassVar[Noun] = Noun(
        "vm", "vms", "VM", "Vm", "vms", doc="Virtual machines, by name.", also=("instances",), held=True
    )
    TITLE: ClassVar[str] = "a VM"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    host: str | None = attr(
        HOST_REF,
        "Where a lab starts it. In production the toolstack decides.",
        default=None,
        also=("on",),
        change=(Disruption.NONE, "where it is started next; a running VM stays where it is"),
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return f"on {self.host}" if self.host else ""

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return NOTHING
