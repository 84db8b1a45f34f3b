"""The agent's loop as its parts see it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from vnet.objects import Vif


class Shell(Protocol):
    """The agent's loop, for those that need another turn of it, or time."""

    def spawn(self, job: Coroutine[Any, Any, None]) -> object:
        """Runs a job for as long as the agent runs."""

    def wake(self) -> None:
        """Asks for a turn."""

    async def programmed(self) -> None:
        """Returns once the switch holds the flows for all that is known now."""

    def refusal(self, vif: str) -> str:
        """The problem that the switch does not take a VIF's flows, "" for none."""

    def arrived(self, vif: str, *, announced: bool) -> None:
        """A VIF has moved here. announced: the guest has told the network so."""

    def took_up(self, vif: Vif, addresses: tuple[str, ...]) -> None:
        """A VIF here may be reached at these addresses now, and could not before."""
