"""Tokens of people and toolstacks, as the pool database keeps them. One rule: the secret itself is nowhere in the pool."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Integer, ListOf, Scalar, ValueRefused, choice
from vnet.objects.labels import is_label
from vnet.objects.scope import Scope
from vnet.objects.words import COUNT, LINE, NAME_KIND

_PATTERN = re.compile(r"[A-Za-z0-9._*-]{1,63}")


class ApiRole(Enum):
    """What a caller may do. A proxy does nothing itself: it names the user that it calls for."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    NETWORK_ADMIN = "network-admin"
    HOST = "host"
    PROXY = "proxy"


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise ValueRefused("wrong-name", "wanted letters, digits, '.', '_', '-', and '*' for any of them, at most 63")
    return text


def _label(text: str) -> str:
    if not is_label(text):
        raise ValueRefused("wrong-value", f"wanted a label, KEY=VALUE, found {text[:40]!r}")
    return text


LABEL_TEXT = Scalar("a label, KEY=VALUE", {"type": "string"}, _label)
PATTERN = Scalar("a name, '*' in it for anything", {"type": "string", "pattern": _PATTERN.pattern}, _pattern)
_PATTERNS = ListOf(PATTERN, "a list of names", as_set=True, most=64)
_QUOTA = Integer("a number, 0..1000000", 0, 1_000_000, bounded=False)


def _patterns(doc: str) -> Any:
    return attr(_PATTERNS, doc, default=frozenset())


@dataclass(frozen=True, slots=True)
class Token(Declared):
    """A token: whoever shows its secret has its role, within its scope."""

    NOUN: ClassVar[Noun] = Noun("token", "tokens", "token", "Token", "")
    TITLE: ClassVar[str] = "a token"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    name: str = attr(NAME_KIND, "Its name, which changes are recorded with.")
    digest: str = attr(LINE, "SHA-256 of its secret, empty for a user that a proxy names.")
    role: ApiRole = attr(choice("a role", ApiRole), "What it may do.")
    host: str = attr(LINE, "The host that a host's token is for.", default="")
    networks: frozenset[str] = _patterns("The networks of its scope.")
    vms: frozenset[str] = _patterns("The VMs of its scope.")
    groups: frozenset[str] = _patterns("The security groups that it may use.")
    qos: frozenset[str] = _patterns("The QoS classes that it may use.")
    labels: frozenset[str] = attr(
        ListOf(LABEL_TEXT, "a list of labels", as_set=True, most=64),
        "Labels of its scope: networks and VMs with one of these.",
        default=frozenset(),
    )
    max_vifs: int | None = attr(_QUOTA, "Most VIFs in its scope.", default=None)
    max_vms: int | None = attr(_QUOTA, "Most VMs in its scope.", default=None)
    made: int = attr(COUNT, "When it was made, in milliseconds since 1970.", default=0)
    maker: str = attr(LINE, "Who made it.", default="")
    ends: int = attr(COUNT, "When it ends, in milliseconds since 1970; 0 for never.", default=0)

    @property
    def scope(self) -> Scope | None:
        """Its scope; None for the whole pool."""
        if not (self.networks or self.vms or self.groups or self.qos or self.labels):
            return None
        return Scope(self.networks, self.vms, self.groups, self.qos, self.max_vifs, self.max_vms, self.labels)
