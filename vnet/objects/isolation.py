"""The isolation of VIFs from each other: a private VLAN (RFC 5517 §2), over a whole pool.

One rule: it is symmetric. Two VIFs exchange frames if one of them is promiscuous, or if both are of one community.
"""

from __future__ import annotations

from typing import Final

from vnet.grammar.nodes import clip
from vnet.grammar.value_types import Scalar, ValueRefused
from vnet.objects.limits import NAME

PROMISCUOUS: Final = "promiscuous"
ISOLATED: Final = "isolated"
COMMUNITY: Final = "community:"


def _isolation(text: str) -> str:
    if text in (PROMISCUOUS, ISOLATED) or (text.startswith(COMMUNITY) and NAME.fullmatch(text[len(COMMUNITY) :])):
        return text
    hint = "a community has a name, as community:web" if text.startswith(COMMUNITY.rstrip(":")) else ""
    raise ValueRefused("wrong-value", f"wanted {ISOLATION.expected}, found '{clip(text)}'", hint)


ISOLATION = Scalar(
    f"'{ISOLATED}', '{COMMUNITY}NAME' or '{PROMISCUOUS}'",
    {"type": "string", "pattern": f"^({ISOLATED}|{PROMISCUOUS}|{COMMUNITY}({NAME.pattern}))$"},
    _isolation,
)


def isolation_of(vif: str | None, network: str | None) -> str:
    """The isolation that a VIF has: its own, else its network's, else none."""
    return vif or network or PROMISCUOUS
