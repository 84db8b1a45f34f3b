"""Calls that a browser makes without its user's will: from another site's page, or to a name that somebody points here.

One rule: a server that strangers reach answers to its own names only, and nothing is changed by a page of another origin. A page that has its name resolve
to our address (DNS rebinding) sends that name as the Host; an address cannot be pointed elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from vnet.api.errors import Forbidden, WrongServer

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1
Headers = Sequence[tuple[bytes, bytes]]


def check_browser(method: str, headers: Headers, names: Collection[str] | None) -> None:
    """Raises WrongServer for a name that is none of these and no address, Forbidden for a change by a page of another origin. names: None where
    any will do, as on a unix socket."""
    host = _text(headers, b"host")
    if names is not None and not _is_ours(host, names):
        raise WrongServer("wrong-host", f"this server is not {host[:100]!r}: name it with --server-name", "host")
    if method in SAFE:
        return
    origin = _text(headers, b"origin")
    if origin and urlsplit(origin).netloc.lower() != host.lower():
        raise Forbidden("cross-origin", "a page of another origin may change nothing", "origin")
    if _text(headers, b"sec-fetch-site") in ("cross-site", "same-site"):
        raise Forbidden("cross-origin", "a page of another site may change nothing", "sec-fetch-site")


def _is_ours(host: str, names: Collection[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    return name in names or _is_address(name)


def _text(headers: Headers, name: bytes) -> str:
    """A header's value; of several, all of them, which is no host and no origin."""
    return ", ".join(value.decode("latin-1") for key, value in headers if key == name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
