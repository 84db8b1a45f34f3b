"""Learns the MACs behind unlocked VIFs here, and forgets those that nobody sends as any more.

One rule: what is known is part of this host's binding of the VIF. So it holds here at once, the other hosts hear of it with the binding, it
outlives this agent, and it goes where the VIF goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from ovsctl.openflow.errors import OpenFlowError
from ovsctl.openflow.flow import FULL_COOKIE
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.shell import Shell
from vnet.compile import Category, Table, cookie
from vnet.objects import Binding, Vif
from vnet.objects.behind import MacBehind, with_heard

log = logging.getLogger(__name__)

PERIOD_S = 10.0
AGE_MS = 300_000  # as bridges do (802.1Q-2018 table 8-6)


class MacLearning:
    """Learns and forgets. age_ms: how long a MAC is known that nobody sends as."""

    def __init__(
        self, pool: PoolReplica, flows: BridgeFlows, shell: Shell, now_ms: Callable[[], int], age_ms: int = AGE_MS
    ) -> None:
        self._pool: Final = pool
        self._flows: Final = flows
        self._shell: Final = shell
        self._now_ms: Final = now_ms
        self._age_ms: Final = age_ms
        self._sent: Final[
            dict[tuple[str, str], tuple[int, int]]
        ] = {}  # by VIF and MAC: frames, and when that last changed

    def frame_from(self, vif: Vif, frame: bytes) -> None:
        """Takes a frame of a VIF here from a MAC that is not known behind it."""
        mine = self._mine(vif)
        if mine is None or mine.state.moving:
            return
        behind = with_heard(
            mine.behind, frame, vif.learn, self._pool.compiler.view.bindings(vif.network), self._now_ms()
        )
        if behind != mine.behind:
            self._set(mine, behind)
            self._shell.wake()

    def settle(self, touched: Iterable[tuple[str, str]]) -> None:
        """Gives up what these VIFs, given as (network, VIF), may not have learned any more."""
        view = self._pool.compiler.view
        for _, vif_id in sorted(touched):
            vif = view.vifs.get(vif_id)
            mine = self._mine(vif) if vif is not None else None
            if vif is not None and mine is not None and len(mine.behind) > vif.learn:
                self._set(mine, mine.behind[len(mine.behind) - vif.learn :])

    async def run(self) -> None:
        """Forgets for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.forget()
            except OpenFlowError as error:
                log.debug("learned MACs are not looked at: %s", error)

    async def forget(self) -> None:
        """Gives up MACs that nobody has sent as for a while, and those that were heard behind another VIF since."""
        view, sent = self._pool.compiler.view, dict(self._sent)
        self._sent.clear()
        for vif in [vif for id in view.ports if (vif := view.vifs.get(id)) is not None and vif.learn]:
            frames = await self._frames(vif) if (found := self._mine(vif)) is not None and found.behind else {}
            mine, now_ms = self._mine(vif), self._now_ms()
            if mine is None:
                continue
            for entry in mine.behind:
                count, at_ms = sent.get((vif.id, entry.mac), (-1, now_ms))
                now = frames.get(entry.mac, count)
                self._sent[vif.id, entry.mac] = (now, at_ms if now == count else now_ms)
            kept = tuple(
                entry
                for entry in mine.behind
                if now_ms - self._sent[vif.id, entry.mac][1] < self._age_ms
                and view.in_front_of(entry.mac, vif.network) in (None, vif.id)
            )
            if kept != mine.behind:
                self._set(mine, kept)
                self._shell.wake()

    async def _frames(self, vif: Vif) -> dict[str, int]:
        """How many frames came from each MAC that is known behind a VIF."""
        counted = await self._flows.counted(cookie(Category.VIF, vif.id), FULL_COOKIE)
        return {
            flow.match["eth_src"].value.to_bytes(6).hex(":"): packets
            for flow, packets, _ in counted
            if flow.table == Table.LEARN and "eth_src" in flow.match
        }

    def _mine(self, vif: Vif) -> Binding | None:
        return self._pool.compiler.view.binding(vif.network, vif.id, self._pool.me)

    def _set(self, mine: Binding, behind: tuple[MacBehind, ...]) -> None:
        self._pool.set_overlay(replace(mine, behind=behind))
        self._pool.touch([mine.vif])
