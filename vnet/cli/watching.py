"""Objects of the pool as they change, for `--watch` and `vnet wait`. One rule: the controller's events say when to ask again, no clock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from vnet.api import RESOURCES, Resource
from vnet.cli.columns import value_of
from vnet.cli.exits import CommandError
from vnet.cli.output import say
from vnet.cli.remote import connected

if TYPE_CHECKING:
    from vnet.client import Client

PAUSE_S = 0.3  # between two questions, however many events there are
ANYWAY_S = 5.0  # what some events do not tell, as an agent's silence, is found by asking this often


def changes(client: Client, until_s: float = math.inf) -> Iterator[None]:
    """Yields at once, and whenever something may have changed in the pool. The caller asks `client` then; it serves several threads. until_s: of time.monotonic(), when
    the caller is asked for the last time at the latest."""
    happened = threading.Event()

    def follow() -> None:
        try:
            for _ in client.follow(limit="0"):
                happened.set()
        except Exception:
            return

    threading.Thread(target=follow, daemon=True).start()
    while True:
        yield
        time.sleep(min(PAUSE_S, max(until_s - time.monotonic(), 0.0)))
        happened.wait(min(ANYWAY_S, max(until_s - time.monotonic(), 0.0)))
        happened.clear()


def watched(client: Client, resource: Resource, ask: Callable[[], list[Any]]) -> Iterator[tuple[list[Any], list[str]]]:
    """The objects of a list that are new or otherwise than before, and the names of those that are gone; all of them at first."""
    shown: dict[str, Any] = {}
    first = True
    for _ in changes(client):
        found = {getattr(row, resource.key): row for row in ask()}
        rows = [row for name, row in found.items() if shown.get(name) != row]
        gone = [name for name in shown if name not in found]
        if rows or gone or first:
            yield rows, gone
        shown, first = found, False


@click.command()
@click.argument("noun", type=click.Choice(sorted(RESOURCES)), metavar="NOUN")
@click.argument("name", metavar="NAME")
@click.option(
    "--for", "condition", required=True, metavar="CONDITION",
    help="ready (a VIF, a VM's VIFs, a host whose agent is alive), deleted, or KEY=VALUE of what 'vnet NOUN get -o json' prints.",
)  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS")
def wait(noun: str, name: str, condition: str, timeout_s: float) -> None:
    """Wait until an object is so: 'vnet wait vif web1/0 --for ready'. Exits with 1 if it is not in time, and says how it is."""
    resource = RESOURCES[noun]
    holds = _condition(resource, condition)
    deadline = time.monotonic() + timeout_s
    with connected() as client:
        for _ in changes(client, deadline):
            found = _of_name(client, resource, name)
            if holds(found):
                say(f"{resource.text} {name}: {condition}")
                return
            if time.monotonic() >= deadline:
                break
    raise CommandError(
        f"{resource.text} {name} is not {condition} within {timeout_s:g} s: {_state_of(resource, found)}"
    )


def _of_name(client: Client, resource: Resource, name: str) -> Any:
    """The object; None if there is none."""
    from vnet.api.errors import NotFound  # noqa: PLC0415
    from vnet.client.requests import reading  # noqa: PLC0415

    try:
        return client.send(reading(resource.answer, resource.plural, name)).value
    except NotFound:
        return None


def _condition(resource: Resource, text: str) -> Callable[[Any], bool]:
    """Whether an object, or None where there is none, is as the text says. Raises UsageError for a text that says nothing of it."""
    key, equals, value = text.partition("=")
    if text == "deleted":
        return lambda found: found is None
    if text == "ready" and resource.word in _READY:
        return lambda found: found is not None and _READY[resource.word](found)
    if not equals:
        known = ", ".join([*(["ready"] if resource.word in _READY else []), "deleted", "KEY=VALUE"])
        raise click.UsageError(f"--for {text}: of {resource.text}s there is {known}")
    return lambda found: found is not None and value_of(resource, found, key) == value


_READY: dict[str, Callable[[Any], bool]] = {
    "vif": lambda vif: vif.place.state == "ready",
    "vm": lambda vm: bool(vm.vifs) and all(vif.place.state == "ready" for vif in vm.vifs),
    "host": lambda host: host.agent.alive and not host.agent.behind,
}


def _state_of(resource: Resource, found: Any) -> str:
    """How an object is, in words."""
    if found is None:
        return "there is none"
    places = [found] if resource.word == "vif" else found.vifs if resource.word == "vm" else ()
    words = [f"{vif.id} is {vif.place.state}" + _reasons(vif) for vif in places]
    if resource.word == "host":
        words.append(
            "its agent is " + ("silent" if not found.agent.alive else f"{found.agent.behind} generations behind")
        )
    return "; ".join(words) or "it is otherwise"


def _reasons(vif: Any) -> str:
    return f" ({'; '.join(reason.text for reason in vif.place.why)})" if vif.place.why else ""
