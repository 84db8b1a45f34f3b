"""Expectations: who should reach whom, or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Integer, choice
from vnet.objects.enums import Owner, Protocol
from vnet.objects.impact import NOTHING, Cost, Usage
from vnet.objects.words import OWNER, text_kind

OUTSIDE = "outside"
ENDPOINT = text_kind("a VIF (VM/INDEX), a VM, a network, a security group, or 'outside'", 128)


class Reach(Enum):
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Expectation(Declared):
    """A statement that some reach others, or do not. Checked on the twin and in the lab."""

    NOUN: ClassVar[Noun] = Noun(
        "expectation", "expectations", "expectation", "Expectation", "expectations", listed=True,
        doc="Statements that some reach others, or do not.", also=("tests", "expect"),
    )  # fmt: skip
    TITLE: ClassVar[str] = "an expectation"
    ORDER: ClassVar[tuple[str, ...]] = ("name", "from", "to", "protocol", "port", "expect")

    name: str = attr(
        text_kind("a name", 200), "Its name in reports. Left out: its ends and what is expected.", allocated=True
    )
    from_: str = attr(
        ENDPOINT,
        "The sender: a VIF as VM/INDEX, a VM, a network, a security group, or `outside`.",
        also=("source", "src"),
        change=NOTHING,
    )
    to: str = attr(ENDPOINT, "The receiver, named the same way.", also=("destination", "dest", "dst"), change=NOTHING)
    expect: Reach = attr(
        choice("an expectation", Reach, {"true": "'reachable'", "false": "'unreachable'"}),
        "What should be.",
        change=NOTHING,
    )
    protocol: Protocol | None = attr(
        choice("a protocol", Protocol),
        "Left out: an ICMP echo request (a ping).",
        default=None,
        also=("proto",),
        change=NOTHING,
    )
    port: int | None = attr(
        Integer("a port, 1..65535", 1, 65535),
        "The destination port; with `protocol: tcp` or `udp`.",
        default=None,
        change=NOTHING,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    def flaws(self) -> Iterator[Flaw]:
        if self.from_ == self.to == OUTSIDE:
            yield Flaw("expectation", "to", "from outside to outside says nothing about this pool")
        with_ports = self.protocol in (Protocol.TCP, Protocol.UDP)
        if self.port is not None and not with_ports:
            message = "a port without 'protocol: tcp' or 'udp'"
            yield Flaw("expectation", "port", message, "add the protocol", relies_on=("protocol",))
        if self.port is None and with_ports and self.protocol is not None:
            message = f"'protocol: {self.protocol.value}' without 'port'"
            yield Flaw("expectation", "protocol", message, "add the port, 1..65535", relies_on=("port",))

    @property
    def packet(self) -> str:
        """The packet in words: `tcp 5432`, `ping`."""
        return "ping" if self.protocol is None else f"{self.protocol.value} {self.port or ''}".rstrip()

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return f"{self.from_} to {self.to} {self.packet} {self.expect.value}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return NOTHING
