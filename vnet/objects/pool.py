"""The pool itself: its name, and what holds for all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import choice
from vnet.objects.enums import Encryption, LockingMode
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage
from vnet.objects.limits import DEFAULT_UNDERLAY_MTU
from vnet.objects.words import COUNT, ENCRYPTION, LINE, MTU, NAME_KIND


@dataclass(frozen=True, slots=True)
class Pool(Declared):
    """The pool itself. Every configuration write raises `revision`; an apply also raises `generation`, which agents acknowledge, and so does a network that gives up a number."""

    NOUN: ClassVar[Noun] = Noun("pool", "pool", "pool", "Pool", "pool", key="", single=True)
    TITLE: ClassVar[str] = "a document"
    MAPS: ClassVar[Mapping[tuple[str, ...], tuple[str, str, tuple[str, ...]]]] = {
        ("defaults",): ("defaults", "Fields of objects that leave them out.", ()),
        ("defaults", "vif"): ("defaults.vif", "Fields of VIFs that leave them out.", ()),
        ("underlay",): ("underlay", "The physical network between the hosts.", ()),
    }

    name: str = attr(
        NAME_KIND,
        "The pool's name. A document is never applied to a pool of another name.",
        word="pool",
        change=(Disruption.NONE, "only a name"),
    )
    underlay_mtu: int = attr(
        replace(MTU, bounded=True),
        "The largest IP packet that the physical network carries between hosts, in bytes.",
        default=DEFAULT_UNDERLAY_MTU,
        word="mtu",
        at=("underlay",),
        change=(Disruption.NONE, "networks whose MTU follows are listed themselves"),
    )
    locking_mode: LockingMode = attr(
        choice("a locking mode", LockingMode),
        "What a VIF may send: as its own MAC and addresses only (locked), anything (unlocked), or nothing (disabled).",
        default=LockingMode.LOCKED,
        word="locking-mode",
        at=("defaults", "vif"),
        change=(Disruption.NONE, "VIFs whose mode follows are listed themselves"),
    )
    encryption: Encryption | None = attr(
        ENCRYPTION,
        "`required`: every tunnel network is encrypted, as if each said so.",
        default=None,
        at=("underlay",),
        change=(Disruption.NONE, "networks that follow are listed themselves"),
    )
    id: str = attr(LINE, "Tells it from other pools of its name. Given once.", default="", set_by=SetBy.RUNTIME)
    revision: int = attr(COUNT, "Raised by every write of configuration.", default=0, set_by=SetBy.RUNTIME)
    generation: int = attr(
        COUNT,
        "Raised by every apply, and where a network gives up a number; agents acknowledge it.",
        default=0,
        set_by=SetBy.RUNTIME,
    )

    key_epoch: int = attr(
        COUNT, "Raised to have every host make new keys of encrypted tunnels.", default=0, set_by=SetBy.RUNTIME
    )

    keyed: int = attr(
        COUNT, "When the key epoch was last raised, in milliseconds since 1970.", default=0, set_by=SetBy.RUNTIME
    )

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        encrypted = ", tunnels encrypted" if self.encryption is not None else ""
        return f"underlay mtu {self.underlay_mtu}, VIFs {self.locking_mode.value}{encrypted}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return NOTHING
