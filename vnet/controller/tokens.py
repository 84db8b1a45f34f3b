"""The calls about tokens: list, make, revoke. One rule: a token's text is in one answer, that of the call that makes it."""

from __future__ import annotations

from collections.abc import Sequence

from vnet import api
from vnet.api.errors import Conflict, Invalid, Refused
from vnet.controller.access import Caller, new_secret
from vnet.controller.endpoint import Call
from vnet.controller.presenters import timestamp
from vnet.db.changes import DeleteObject, InsertObject, RowChange, UpdateObject
from vnet.db.database import now_ms
from vnet.db.view import PoolView
from vnet.grammar.declare import InvalidValue
from vnet.grammar.value_types import ValueRefused
from vnet.objects.limits import NAME
from vnet.objects.token import ApiRole, Token

DAY_MS = 24 * 3600 * 1000
MAX_DAYS = 36500.0
SHOWN_S = 5.0  # until the pool shows a token that was made


async def list_tokens(call: Call[None]) -> list[api.Token]:
    """All tokens."""
    tokens = call.service.database.mirror.tokens
    call.service.view()  # of a database that is away we know nothing new
    return [show_token(tokens[name]) for name in sorted(tokens)]


async def get_caller(call: Call[None]) -> api.Caller:
    """The caller, by what it shows."""
    caller = call.service.caller
    token = caller.token
    role = caller.role.value if caller.role is not None else ""
    return api.Caller(name=caller.name, role=role, source=caller.source, token=show_token(token) if token else None)


async def make(call: Call[api.TokenCall]) -> api.NewToken:
    """Make a token, whose text is in this answer and nowhere else."""
    name, body, mirror = call.id, call.body, call.service.database.mirror
    secret, digest = ("", "") if body.user else new_secret(name)
    made = _token(name, body, digest, call.service.caller)

    def decide(_: PoolView) -> Sequence[RowChange]:
        old = mirror.tokens.get(name)
        if old is not None and not body.replace:
            message = f"there is a token {name}: revoke it, or have it replaced, which ends the old one"
            raise Conflict("token-exists", message, "name")
        return (UpdateObject(old, made),) if old is not None else (InsertObject(made),)

    await call.service.step(decide)
    await call.service.database.wait_for(lambda _: mirror.tokens.get(name) == made, SHOWN_S)
    return api.NewToken(token=show_token(made), secret=secret)


async def revoke(call: Call[None]) -> api.Done:
    """Revoke a token."""
    mirror = call.service.database.mirror

    def decide(_: PoolView) -> Sequence[RowChange]:
        old = mirror.tokens.get(call.id)
        return () if old is None else (DeleteObject(old),)

    done = await call.service.step(decide)
    await call.service.database.wait_for(lambda _: call.id not in mirror.tokens, SHOWN_S)
    return api.Done(done=done)


def _token(name: str, body: api.TokenCall, digest: str, maker: Caller) -> Token:
    """The token that a body describes; raises Invalid."""
    if not NAME.fullmatch(name):
        raise Invalid("wrong-name", f"{name[:60]!r} is no name of a token", "name")
    now = now_ms()
    ends = now + int(min(body.days, MAX_DAYS) * DAY_MS) if body.days > 0 else 0
    try:
        made = Token(
            name, digest, ApiRole(body.role), body.host,
            frozenset(body.networks), frozenset(body.vms), frozenset(body.security_groups), frozenset(body.qos_classes),
            frozenset(body.labels), body.max_vifs, body.max_vms, now, maker.name, ends,
        )  # fmt: skip
    except (InvalidValue, ValueRefused, ValueError) as error:
        raise Invalid("wrong-token", str(error)) from None
    if problem := _problem(made, body):
        raise problem
    return made


def _problem(made: Token, body: api.TokenCall) -> Refused | None:
    scoped = made.scope is not None
    if (made.role is ApiRole.HOST) != bool(made.host):
        return Invalid("wrong-token", "a token of role host names its host, and no other does", "host")
    if scoped and made.role in (ApiRole.HOST, ApiRole.PROXY):
        return Invalid("wrong-token", f"a token of role {made.role.value} has no scope", "networks")
    if not scoped and (made.max_vifs is not None or made.max_vms is not None):
        return Invalid("wrong-token", "a quota is of a scope: name networks and VMs", "max_vifs")
    if body.days < 0:
        return Invalid("wrong-token", "days are 0, for a token that does not end, or more", "days")
    if body.user and made.role is ApiRole.PROXY:
        return Invalid("wrong-token", "a proxy has a secret: it is no user that a proxy names", "user")
    return None


def show_token(token: Token) -> api.Token:
    """A token for the API, without its digest."""
    return api.Token(
        name=token.name,
        role=token.role.value,
        user=not token.digest,
        host=token.host,
        networks=sorted(token.networks),
        vms=sorted(token.vms),
        security_groups=sorted(token.groups),
        qos_classes=sorted(token.qos),
        labels=sorted(token.labels),
        max_vifs=token.max_vifs,
        max_vms=token.max_vms,
        made=timestamp(token.made),
        maker=token.maker,
        ends=timestamp(token.ends),
    )
