"""A page of a controller, as a person with a token has it open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vnet import api
from vnet.client import Client
from vnet.lab import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
_numbers = itertools.count()


class ChromiumCrashed(Exception):
    """The browser's renderer has crashed on a page: whatever the test waited for does not come."""


@dataclass
class Site:
    """The page's address, and a client that may do everything."""

    url: str
    client: Client
    lab: Lab | None = None
    complaints: list[str] = field(default_factory=list)

    def token(self, role: str = "network-admin", **scope: Any) -> str:
        return self.client.make_token(f"{role}-{next(_numbers)}", api.TokenCall(role=role, **scope)).secret

    @contextmanager
    def open(
        self,
        browser: Browser,
        path: str = "",
        role: str = "network-admin",
        scope: dict[str, Any] | None = None,
        **context: Any,
    ) -> Iterator[Page]:
        """A page by a person who is logged in. Whatever the browser complains of, and each request to elsewhere, fails the test."""
        made = browser.new_context(
            **{"viewport": {"width": 1360, "height": 860}, "reduced_motion": "reduce", **context}
        )
        page = made.new_page()
        complaints: list[str] = []
        crashes: list[str] = []
        page.on("crash", lambda _: crashes.append(page.url))
        page.on(
            "console",
            lambda message: complaints.append(f"{message.type}: {message.text}") if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                complaints.append(f"asks {request.url}")
                if not request.url.startswith((self.url, "blob:", "data:"))
                else None
            ),
        )
        token = self.token(role, **(scope or {}))
        try:
            page.goto(self.url)
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("heading", level=1).and_(page.get_by_text("Overview")).wait_for()
            if path:
                self.go(page, path)
            yield page
        except Exception as error:
            if crashes:
                raise ChromiumCrashed(crashes[0]) from error
            raise
        finally:
            made.close()
        # A call that is refused, as of a browser that asks who it is and has no token yet, is not the page's fault.
        wrong = [it for it in complaints if "status of 4" not in it]
        assert not wrong, wrong

    def go(self, page: Page, path: str) -> None:
        """To another address of the page, until it is shown."""
        page.evaluate("path => { location.hash = path; }", f"#/{path}")
        page.locator(f"main:not([aria-busy])[data-shown='#/{path}']").wait_for()


def picture(page: Page, name: str, *, whole: bool = False) -> None:
    """A picture for the docs."""
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)
