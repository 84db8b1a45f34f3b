"""Followers of toolstacks: of several that follow one toolstack one writes, and the others stand by.

One rule: who follows is decided by the pool's row alone, and silence is measured by who waits: no two clocks are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE, NAME_KIND

QUIET_BEATS = 3  # of the follower that writes, after which one that has stood by and said nothing is gone


@dataclass(frozen=True, slots=True)
class ToolstackFollower(Declared):
    """The follower of a toolstack. standby: another one that waits for its silence."""

    NOUN: ClassVar[Noun] = Noun("follower", "followers", "follower", "Follower", "")
    TITLE: ClassVar[str] = "a follower"

    name: str = attr(NAME_KIND, "What it follows, as VMs name their origin.", set_by=SetBy.NAME)
    holder: str = attr(LINE, "The follower that writes.", default="", set_by=SetBy.RUNTIME)
    beat: int = attr(COUNT, "How often it has said that it follows.", default=0, set_by=SetBy.RUNTIME, ephemeral=True)
    standby: str = attr(LINE, "Another one, which stands by.", default="", set_by=SetBy.RUNTIME)
    quiet: int = attr(
        COUNT, "Beats since that one has asked.", default=0, set_by=SetBy.RUNTIME, ephemeral=True
    )  # fmt: skip

    def asked(self, caller: str, silent_at: int | None = None) -> ToolstackFollower:
        """Once a follower has asked to be the one. silent_at: the beat at which it has seen the other one stand for long enough."""
        if caller == self.holder:
            quiet = self.quiet + 1 if self.standby else 0
            kept = self.standby if quiet < QUIET_BEATS else ""
            return replace(self, beat=self.beat + 1, standby=kept, quiet=quiet if kept else 0)
        if not self.holder or silent_at == self.beat:
            return ToolstackFollower(self.name, caller, self.beat + 1)
        return replace(self, standby=caller, quiet=0)

    def left(self, caller: str) -> ToolstackFollower:
        """Once a follower has ended: nobody waits for its silence."""
        if caller == self.holder:
            return replace(self, holder="", standby="", quiet=0)
        return replace(self, standby="", quiet=0) if caller == self.standby else self
