"""Questions to hosts: how many packets has each rule of a security group matched? A row each: a controller asks, an agent answers.

One rule: a host answers for its own switch; the controller adds up, and names the hosts that did not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec

from vnet.db.replies import HostReply
from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects import Direction
from vnet.objects.words import COUNT, GROUP_NAME, LINE

MAX_ANSWER_BYTES = (
    768 * 1024
)  # MAX_RULES rules with the longest names, and MONITORED_OF_GROUP kinds of connections, take two thirds


@dataclass(frozen=True, slots=True)
class RuleQuery(Declared):
    """A question. answer: the database keeps it off its disk."""

    NOUN: ClassVar[Noun] = Noun("rule-query", "rule-queries", "rule query", "RuleQuery", "", key="id")
    TITLE: ClassVar[str] = "a rule query"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    id: str = attr(LINE, "Its id.")
    host: str = attr(LINE, "The host that is asked.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    group: str = attr(GROUP_NAME, "The security group.")
    answer: str = attr(LINE, "Empty until answered, then a RuleReply as JSON.", default="", ephemeral=True)


class RuleCounter(msgspec.Struct, frozen=True, array_like=True):
    """What a rule's flows have matched on one host, or with an empty name what the group's default has."""

    rule: str
    direction: Direction
    packets: int = 0
    bytes: int = 0


class MonitoredCounter(msgspec.Struct, frozen=True, array_like=True):
    """What a group in monitor mode would have forbidden a VIF on one host: what began a connection, and packets of those that ran on."""

    vif: str
    direction: Direction
    begun: int = 0
    running: int = 0


class MonitoredConnection(msgspec.Struct, frozen=True, array_like=True):
    """Connections of one kind that a group in monitor mode would have forbidden a VIF, of those that the agent has looked at.

    direction: in which they began, from the VIF's side. port: of the side that answers, with ICMP the message's type. protocol: -1 without
    IP, port is the Ethernet type then. peer: the other end's address. rule: "" for the group's default. last: milliseconds since 1970. answers: packets from that
    port, of a stateless group; their direction is their own.
    """

    vif: str
    direction: Direction
    protocol: int
    port: int
    peer: str
    mac: str
    rule: str
    count: int
    last: int
    answers: bool = False

    @property
    def rank(self) -> tuple[int | str, ...]:
        """Orders them, the most frequent first."""
        rest = (self.vif, self.direction.value, self.protocol, self.port, self.peer, self.mac, self.rule, self.answers)
        return (-self.count, *rest)


class RuleReply(HostReply, frozen=True):
    """A host's counters of a group's rules, and what it would have forbidden in monitor mode."""

    MAX_BYTES = MAX_ANSWER_BYTES
    TOO_LONG = "the counters are too many"
    counters: tuple[RuleCounter, ...] = ()
    monitored: tuple[MonitoredCounter, ...] = ()
    connections: tuple[MonitoredConnection, ...] = ()
