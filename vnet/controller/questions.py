"""Asking hosts. One rule: a host that does not answer is an answer too, which says why; never an error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from vnet.controller.vif_status import host_problem
from vnet.db.database import PoolDatabase, Question
from vnet.db.replies import MAX_ASKED, HostReply
from vnet.db.view import PoolView

R = TypeVar("R", bound=HostReply)


async def ask(
    database: PoolDatabase, view: PoolView, questions: Sequence[Question], reply: type[R], wait_s: float
) -> list[R]:
    """What hosts answer, in the order of the questions, all of one table. A host that is known to be away is not asked. Raises PoolError."""
    hosts = {question.host for question in questions}
    away = {host: reason.text for host in hosts if (reason := host_problem(view, host)) is not None}
    asked = [question for question in questions if question.host not in away]
    parts = [asked[start : start + MAX_ASKED] for start in range(0, len(asked), MAX_ASKED)]
    found = await asyncio.gather(*(database.ask(part, wait_s) for part in parts))
    texts = iter(text for part in found for text in part)
    replies = []
    for question in questions:
        problem = away.get(question.host, f"the agent of host {question.host} did not answer within {wait_s:g} s")
        text = next(texts) if question.host not in away else ""
        replies.append(reply.decode(text) if text else reply(problem=problem))
    return replies
