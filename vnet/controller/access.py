"""Callers of the API: who they are, by what they show, and what they may do.

One rule: what a caller shows is compared in constant time and kept nowhere. A secret is 256 random bits, so its SHA-256 tells nobody anything.
"""

from __future__ import annotations

import hmac
import pwd
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from urllib.parse import unquote

from vnet.api.errors import Forbidden, Invalid, Unauthorized
from vnet.db.changes import RowChange
from vnet.db.history import MAX_REASON, Author
from vnet.db.view import PoolView
from vnet.objects import Binding, Vif, Vm
from vnet.objects.scope import Scope
from vnet.objects.token import ApiRole, Token

PREFIX = "vnet_"
REASON = b"vnet-reason"  # the header with the reason of a change, in UTF-8 with percent-encoding
MAX_USER = 63
_NOBODY = sha256(b"").hexdigest()

VIEWERS = frozenset({ApiRole.VIEWER, ApiRole.OPERATOR, ApiRole.NETWORK_ADMIN, ApiRole.HOST})
OPERATORS = frozenset({ApiRole.OPERATOR, ApiRole.NETWORK_ADMIN})
HOSTS = OPERATORS | {ApiRole.HOST}
ADMINS = frozenset({ApiRole.NETWORK_ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call. token: theirs, None for one that may do everything. role: None for one that has shown nothing."""

    name: str = "controller"
    source: str = ""
    role: ApiRole | None = ApiRole.NETWORK_ADMIN
    token: Token | None = None
    reason: str = ""
    call: str = ""

    @property
    def author(self) -> Author:
        """The caller as the author of a change."""
        return Author(self.name, self.source, self.reason, self.call)

    @property
    def scope(self) -> Scope | None:
        """The scope that bounds it; None for the whole pool."""
        return self.token.scope if self.token is not None else None

    def check_role(self, roles: Collection[ApiRole], *, scoped: bool) -> None:
        """Raises Forbidden unless it has one of these roles, and no scope where calls of such are not `scoped`."""
        if self.role not in roles:
            least = next(role for role in ApiRole if role in roles).value
            mine = self.role.value if self.role is not None else "none"
            raise Forbidden("role", f"this takes the role {least}; {self.name} has the role {mine}", least)
        if self.scope is not None and not scoped:
            raise Forbidden("scope", f"this is about the whole pool, and {self.name} has a scope", "scope")

    def check_whole(self, given: Iterable[str]) -> None:
        """Raises Forbidden if it has a scope and gives what is about the whole pool."""
        if self.scope is not None and (name := next(iter(given), None)) is not None:
            raise Forbidden("scope", f"{name} is about the whole pool, and {self.name} has a scope", name)

    def check_changes(self, changes: Iterable[RowChange], view: PoolView) -> None:
        """Raises Forbidden for a change of what is not its."""
        if self.role is ApiRole.HOST and self.token is not None:
            self._check_host(self.token.host, changes, view)
        scope = self.scope
        if scope is None:
            return
        scope = scope.resolved(view.state.networks.values())
        for change in changes:
            old, new = change.old, change.new
            subject = new if new is not None else old
            vif = view.state.vifs.get(subject.vif) if isinstance(subject, Binding) else None
            for obstacle in scope.obstacles(old, new, vif, view.state.pool):
                raise Forbidden("scope", f"{obstacle} is not in the scope of {self.name}", "scope")

    def _check_host(self, host: str, changes: Iterable[RowChange], view: PoolView) -> None:
        for change in changes:
            if not _of_host(host, change, view):
                raise Forbidden("scope", f"{self.name} is for what runs on host {host}, or is on its way there", "host")


def _of_host(host: str, change: RowChange, view: PoolView) -> bool:
    """Whether a host may make a change: of what is wanted or runs there. The destination of a migration may end it, and begin none."""
    old, new = change.old, change.new
    if isinstance(old, Binding):
        vif = view.state.vifs.get(old.vif)
        return host == old.host or (vif is not None and host in (vif.host, vif.incoming))
    if isinstance(old, Vm):
        return any(host in (vif.host, vif.incoming) for vif in view.vifs(old.name))
    if not isinstance(old, Vif) or not isinstance(new, Vif):
        return False
    if old.host is not None:
        return host == old.host or (host == old.incoming and new.incoming is None)
    current = view.location(old.id).current
    return host == current.host if current is not None else new.host == host


# --- tokens ---------------------------------------------------------------------------------------


def new_secret(name: str) -> tuple[str, str]:
    """The text of a new token and the digest that the pool keeps of it."""
    secret = secrets.token_hex(32)
    return f"{PREFIX}{name}_{secret}", sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Access:
    """How callers prove who they are. tokens: those of the pool. own: the token of the controller's file. identity_header: of a reverse proxy,
    in lower case, "" for none."""

    tokens: Callable[[], Mapping[str, Token]] = dict
    own: bytes | None = None
    identity_header: str = ""

    def caller(self, headers: Sequence[tuple[bytes, bytes]], source: str, now_ms: int) -> Caller | None:
        """The caller by its token; None if it shows none. Raises Unauthorized, Forbidden, Invalid."""
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            return None
        scheme, _, credentials = given[0].partition(b" ")
        if len(given) > 1 or scheme.lower() != b"bearer":
            raise _unauthorized()
        shown = credentials.strip()
        if self.own is not None and hmac.compare_digest(shown, self.own):
            return Caller("the controller's token file", source, reason=reason_of(headers))
        token = self._token(shown, now_ms)
        name = f"token {token.name}"
        if token.role is not ApiRole.PROXY:
            return Caller(name, source, token.role, token, reason_of(headers))
        return self._user(name, headers, source, now_ms)

    def claimed(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The token whose name a caller shows, whatever it has of it; "" for none that there is."""
        shown = next((value for name, value in headers if name == b"authorization"), b"")
        name = shown.rpartition(b" ")[2].rpartition(b"_")[0].decode("latin-1").removeprefix(PREFIX)
        return name if name in self.tokens() else ""

    def holds(self, caller: Caller, now_ms: int) -> bool:
        """Whether its token is still one."""
        token = caller.token
        return token is None or (self.tokens().get(token.name) == token and not _ended(token, now_ms))

    def _token(self, shown: bytes, now_ms: int) -> Token:
        head, _, secret = shown.rpartition(b"_")
        name = head.decode("latin-1").removeprefix(PREFIX)
        token = self.tokens().get(name)
        # Compared in any case, so that the time tells nothing of which names there are.
        digest = token.digest if token is not None and token.digest else _NOBODY
        same = hmac.compare_digest(sha256(secret).hexdigest(), digest)
        if not same or token is None or not token.digest or not head.startswith(PREFIX.encode()):
            raise _unauthorized()
        if _ended(token, now_ms):
            raise Unauthorized("token-ended", f"token {name} has ended: have another one made")
        return token

    def _user(self, proxy: str, headers: Sequence[tuple[bytes, bytes]], source: str, now_ms: int) -> Caller:
        """The user that a proxy calls for."""
        if not self.identity_header:
            raise Forbidden("proxy", "this controller was started without --identity-header", "identity-header")
        wanted = self.identity_header.encode()
        given = [value for name, value in headers if name == wanted]
        user = given[0].decode("latin-1") if len(given) == 1 else ""
        token = self.tokens().get(user)
        if token is None or token.digest or token.role is ApiRole.PROXY or _ended(token, now_ms):
            shown = f"user {user[:MAX_USER]!r}" if user else "no user"
            raise Forbidden("unknown-user", f"{proxy} names {shown}: 'vnet token make NAME --user' makes one", "user")
        return Caller(f"{user} by {proxy}", source, token.role, token, reason_of(headers))


def _ended(token: Token, now_ms: int) -> bool:
    return 0 < token.ends <= now_ms


def _unauthorized() -> Unauthorized:
    return Unauthorized("unauthorized", "give a token of the pool as a bearer token ('vnet token make')")


def reason_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The reason that a call gives; raises Invalid for one that is no line of text."""
    text = unquote(next((value for name, value in headers if name == REASON), b"").decode("latin-1")).strip()
    if len(text) > MAX_REASON or (text and not text.isprintable()):
        raise Invalid("reason", f"a reason is one line of at most {MAX_REASON} characters", "reason")
    return text


def user_of(uid: int) -> str:
    """The name of a user of this machine. It may take a while, so call it in a thread."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def with_call(caller: Caller, call: str) -> Caller:
    """The caller as it makes this call."""
    return replace(caller, call=call)
