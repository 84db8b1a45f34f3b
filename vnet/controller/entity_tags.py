"""Entity tags of objects and of plans, by which a write is bound to what its caller has seen (RFC 9110 sections 8.8.3 and 13.1.1). Pure.

One rule: a tag has all that was shown and no revision: what others change elsewhere leaves it as it is.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import msgspec

from vnet.api.errors import Invalid, PreconditionFailed
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared, attrs_of, json_word, plain
from vnet.objects import Pool
from vnet.plan import PoolPlan, plan_dict
from vnet.plan.decide import Admission
from vnet.plan.pool import is_configured

IF_MATCH = "If-Match"
MATCHES = "Tags, of which one must be that of the object now, or of what the call would do now: the ETag that reading it, or a dry run, has answered."
ANY = "*"  # of an object that is there, whatever it is
MOST = 20  # tags in one header
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')


def tags_in(header: str) -> frozenset[str]:
    """The tags of an If-Match. A weak tag matches nothing, so it is left out. Raises Invalid."""
    if header.strip() == ANY:
        return frozenset({ANY})
    found = [_TAG.fullmatch(part.strip()) for part in header.split(",", MOST)]
    if None in found or len(found) > MOST:
        raise Invalid("if-match", f"{header[:60]!r} is neither * nor a quoted tag, nor some by commas", IF_MATCH)
    return frozenset(match[2] for match in found if match is not None and match[1] is None)


def plan_tag(pool: Pool | None, plan: PoolPlan) -> str:
    """The id of a plan in a pool."""
    return tag_of_changes(pool.id if pool is not None else "", plan_dict(plan)["changes"])


def tag_of_changes(pool_id: str, changes: Any) -> str:
    """The id of a plan's changes, as JSON has them."""
    parts = [
        (it["action"], it["kind"], it["name"], it["fields"], it["new"] if it["old"] is None else None, it["reason"], it["disruption"])
        for it in changes
    ]  # fmt: skip
    return _digest([pool_id, parts])


def object_tag(value: Declared) -> str:
    """The tag of an object: of what a document or a toolstack decides of it, so it stays while the object runs elsewhere or is counted anew."""
    shown = plain(value, document=False)
    decided = [found for found in attrs_of(type(value)).values() if is_configured(found)]
    words = [json_word(found, spelling) for found in decided for spelling in found.spellings]
    return _digest([value.NOUN.word, {word: shown[word] for word in words}])


def check_match(tags: frozenset[str] | None, declared: type[Declared], found: Admission, view: PoolView) -> None:
    """Raises PreconditionFailed for a decision that its caller has not seen: neither the object as it is, nor the plan. One that changes nothing
    needs no tag: an answer that was lost is asked for again."""
    if tags is None or not found.changes:
        return
    value = getattr(view.state, declared.NOUN.state).get(found.name)
    now = (
        {plan_tag(view.state.pool, found.plan)}
        if value is None
        else {ANY, object_tag(value), plan_tag(view.state.pool, found.plan)}
    )
    if not tags & now:
        text = f"{declared.NOUN.text} {found.name}, or what this call would do, is another by now than what {IF_MATCH} names: read it or plan it again"
        raise PreconditionFailed("changed", text, IF_MATCH)


def _digest(value: Any) -> str:
    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
