"""Flow exports: collectors that hosts tell of the frames on their br-int, or of those of single VIFs, by IPFIX, NetFlow or sFlow.

One rule: each host exports what passes it, so a VIF that moves is told of by the host that it runs on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Integer, choice
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.labels import Labels
from vnet.objects.vif_sources import are_of, sources_list
from vnet.objects.words import COLLECTOR, NAME_KIND, OWNER

MAX_SAMPLE = 2**31 - 1
MAX_SAMPLE_OF_VIFS = 65535  # the action sample has a chance in 65535 (ovs-actions(7))
UNHARMED = Disruption.NONE, "frames go on as they do"


class FlowProtocol(Enum):
    IPFIX = "ipfix"  # RFC 7011
    NETFLOW = "netflow"  # version 5
    SFLOW = "sflow"  # version 5


@dataclass(frozen=True, slots=True)
class FlowCollector(Declared):
    """A collector that every host tells of the frames on its br-int, or of those of the VIFs that it is of."""

    NOUN: ClassVar[Noun] = Noun(
        "flow-collector", "flow-export", "flow collector", "FlowCollector", "flow_collectors",
        doc="Collectors of flows, by name: each host tells them of what passes its br-int.",
        also=("flow-exports", "netflow", "sflow", "ipfix", "collectors"),
    )  # fmt: skip
    TITLE: ClassVar[str] = "a flow collector"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    protocol: FlowProtocol = attr(
        choice("a protocol", FlowProtocol, {"netflow9": "ipfix", "netflow5": "netflow", "netflowv5": "netflow"}),
        "What the collector reads: IPFIX, NetFlow 5 or sFlow 5.",
        change=UNHARMED,
    )
    to: str = attr(
        COLLECTOR,
        "The collector, as ADDRESS:PORT of UDP, an IPv6 address in brackets. Hosts send to it as their own routes say.",
        also=("target", "address", "collector"),
        change=UNHARMED,
    )
    sample: int | None = attr(
        Integer(f"one frame of how many, 1..{MAX_SAMPLE}", 1, MAX_SAMPLE),
        "One frame of so many is looked at, 400 unless told; not with NetFlow, which counts all. Each costs a host a way through `ovs-vswitchd`.",
        default=None,
        also=("sampling", "rate"),
        change=UNHARMED,
    )
    of: tuple[str, ...] = attr(
        sources_list(""),
        "The VIFs of which IPFIX tells, with their names in each record: by id, or those in a group (`group:NAME`), on a network (`network:NAME`), or with a label (`label:KEY=VALUE`). "
        "Left out: all that passes br-int, without names.",
        default=(),
        also=("from", "sources", "vifs"),
        change=UNHARMED,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    def flaws(self) -> Iterator[Flaw]:
        if self.protocol is FlowProtocol.NETFLOW and self.sample is not None:
            yield Flaw(
                "wrong-value", "sample", "NetFlow counts every frame", "leave 'sample' out, or take ipfix or sflow"
            )

        if self.of and self.protocol is not FlowProtocol.IPFIX:
            message = f"{self.protocol.value} has no field for the name of a VIF, and tells of a whole bridge"
            yield Flaw("wrong-value", "of", message, "take ipfix, or leave 'of' out", relies_on=("protocol",))
        if self.of and (self.sample or 0) > MAX_SAMPLE_OF_VIFS:
            hint = f"at most {MAX_SAMPLE_OF_VIFS}; or leave 'of' out"
            yield Flaw("wrong-value", "sample", "single VIFs cannot be sampled so seldom", hint, relies_on=("of",))

    def selects(self, vif: str, network: str, groups: tuple[str, ...], labels: Labels) -> bool:
        """Whether it is of a VIF, by id, network, groups and all its labels."""
        return are_of(self.of, vif, network, groups, labels)

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        of = f" of {', '.join(self.of)}" if self.of else ""
        return f"{self.protocol.value} to {self.to}{of}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return Disruption.NONE, "its collector is told nothing more"
