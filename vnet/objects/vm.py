"""Virtual machines: VIFs that move as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import ListOf
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.labels import LABELS, Labels
from vnet.objects.limits import MAX_GROUPS_OF_VIF
from vnet.objects.words import GROUP_REF, HOST_REF, NAME_KIND, OWNER, TITLE_KIND


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
    title: str | None = attr(
        TITLE_KIND,
        "What people call it; others may be called the same.",
        default=None,
        also=("description", "display-name", "name-label"),
        change=NOTHING,
    )
    origin: str | None = attr(
        NAME_KIND,
        "The pool of a toolstack that it comes from, as made it: `xapi-UUID`.",
        default=None,
        set_by=SetBy.TOOLSTACK,
        change=NOTHING,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )
    groups: tuple[str, ...] = attr(
        ListOf(GROUP_REF, "a list of security groups", most=MAX_GROUPS_OF_VIF, ordered=True),
        "Security groups of a tier above `vif` that judge each of its VIFs.",
        default=(),
        word="security-groups",
        also=("security-group", "groups", "group"),
        change=(Disruption.NONE, "its VIFs are listed themselves"),
    )
    labels: Labels = attr(
        LABELS,
        "Words that say what it is. Its VIFs have them too; rules name them.",
        default=(),
        also=("label", "tags", "metadata"),
        change=(Disruption.NONE, "its VIFs are listed themselves"),
    )

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return " ".join(filter(None, (self.title, f"on {self.host}" if self.host else "")))

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return NOTHING
