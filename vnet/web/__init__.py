"""The files of the web page, which the controller serves to whoever asks: they hold nothing of any pool.

One rule: a page loads these and nothing from elsewhere, runs no script but theirs, and what it shows of a pool it asks the REST API for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

INDEX = "index.html"
FOLDER = "/web/"
MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Content Security Policy Level 3, Trusted Types: what is not named is forbidden, and text never becomes elements.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",  # asked for again each time, and answered by 304 while it is the same
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is served. tag: its entity tag (RFC 9110 §8.8.3)."""

    data: bytes
    media: str
    tag: str


@lru_cache(maxsize=1)
def page_files() -> Mapping[str, PageFile]:
    """All files by the path of their URL: the page itself at "/", the others under FOLDER."""
    return dict(_found(files(__name__), ""))


def _found(folder: Traversable, path: str) -> Iterator[tuple[str, PageFile]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _found(entry, f"{path}{entry.name}/")
            continue
        media = MEDIA_TYPES.get(entry.name[entry.name.rfind(".") :])
        if media is not None:
            data = entry.read_bytes()
            url = "/" if path + entry.name == INDEX else f"{FOLDER}{path}{entry.name}"
            yield url, PageFile(data, media, f'"{sha256(data).hexdigest()[:32]}"')
