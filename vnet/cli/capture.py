"""`vnet capture`: the frames of VIFs of the running pool, in one file."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import say, status_line
from vnet.cli.remote import connected

if TYPE_CHECKING:
    from vnet.client import Client

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
NOT_CAPTURED = "not captured: "
TOLD_S = 0.2  # between two lines of progress


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
    if match is None or not 0 < float(match[1]) * UNITS[match[2]] <= 3600:
        raise click.BadParameter(f"{value!r} is no time up to an hour, as 30s, 5m or 1h")
    return float(match[1]) * UNITS[match[2]]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="VIF...")
@click.option("-w", "--write", "path", required=True, metavar="FILE", help="A file of pcapng; - for standard output.")
@click.option("--filter", "text", default="", metavar="TEXT", help="Only these, as for tcpdump: 'tcp port 5432'.")
@click.option(
    "--for", "seconds", default="1h", show_default=True, callback=_seconds, metavar="TIME", help="As 30s, 5m."
)
@click.option("--frames", type=click.IntRange(1), metavar="N", help="End after so many frames.")
@click.option("--snap", type=click.IntRange(14, 9238), default=9238, show_default=True, help="Bytes of each frame.")
@click.option(
    "--rate", type=click.IntRange(1, 2000), default=1000, show_default=True,
    help="The most frames a second on each host; more are dropped, and counted.",
)  # fmt: skip
def capture(
    names: tuple[str, ...], path: str, text: str, seconds: float, frames: int | None, snap: int, rate: int
) -> int:
    """Capture what VIFs (as web1/0; a VM stands for all of its VIFs) send and are sent, on whatever hosts they are and come to, into one file
    with an interface for each VIF, direction and host. It needs the role network-admin, and is recorded in 'vnet history'.

    Ctrl-C ends it with a whole file. 'vnet capture web1/0 -w - | wireshark -k -i -' shows frames as they come."""
    from vnet import api  # noqa: PLC0415 - help need not pay for it

    with connected() as client:
        call = api.CaptureCall(vifs=_vifs(client, names), filter=text, seconds=seconds, snap=snap, rate=rate)
        shown = _Shown(frames)
        with _ended_by_signals(client, shown):
            blocks = client.capture(call)
            first = next(blocks)  # who is refused gets no file
            with _opened(path) as file, suppress(BrokenPipeError):
                shown.take(client, first)
                file.write(first)
                for block in blocks:
                    shown.take(client, block)
                    file.write(block)
                    file.flush()
    return shown.end(path)


def _vifs(client: Client, names: tuple[str, ...]) -> list[str]:
    """The VIFs that are meant: a VM's name stands for all of its."""
    found = [vif for name in names for vif in ([name] if "/" in name else [it.id for it in client.vm(name).vifs])]
    return list(dict.fromkeys(found))


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            yield file
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", ExitCode.INVALID_INPUT) from None


@contextmanager
def _ended_by_signals(client: Client, shown: _Shown) -> Iterator[None]:
    """The first Ctrl-C has the hosts send what is left, and the second one waits for nothing."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shown.finish(client)

    before = signal.signal(signal.SIGINT, stop) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


class _Shown:
    """What is captured so far, and the lines about it."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._id = ""
        self._names: list[str] = []
        self._frames = self._bytes = 0
        self._dropped: dict[int, int] = {}
        self._silent: dict[str, None] = {}
        self._told_s = 0.0
        self._begun_s = time.monotonic()
        self._finishing = False

    def take(self, client: Client, block: bytes) -> None:
        from vnet.util import pcapng  # noqa: PLC0415
        from vnet.util.pcapng import Block  # noqa: PLC0415

        match pcapng.type_of(block):
            case Block.SECTION:
                self._id = pcapng.section_of(block)
            case Block.INTERFACE:
                name, comment = pcapng.interface_of(block)
                self._names.append(name)
                if comment.startswith(NOT_CAPTURED):
                    self._say_once(f"{name}: {comment}")
                elif name.partition(" ")[2].startswith("sent"):
                    self._say_once(f"capturing {name.replace(' sent, ', ' on ')}: {comment}")
            case Block.PACKET:
                self._frames += 1
                self._bytes += len(pcapng.packet_of(block)[2])
                if self._frames == self._limit:
                    self.finish(client)
            case Block.STATISTICS:
                number, _, dropped = pcapng.statistics_of(block)
                self._dropped[number] = dropped
        if time.monotonic() - self._told_s >= TOLD_S:
            self._told_s = time.monotonic()
            status_line(self._summary())

    def finish(self, client: Client) -> None:
        """Has the controller end the capture, once it is known which; the file ends then."""
        if not self._finishing and self._id:
            self._finishing = True
            threading.Thread(target=lambda: _quietly(client, self._id), daemon=True).start()

    def end(self, path: str) -> int:
        status_line("")
        say(f"{self._summary()}{'' if path == '-' else f', in {path}'}")
        for number, dropped in sorted(self._dropped.items()):
            if dropped:
                say(
                    f"  {self._names[number]}: {dropped} more came than were captured: ask for fewer by --filter, or more by --rate"
                )
        return ExitCode.OK

    def _summary(self) -> str:
        dropped = sum(self._dropped.values())
        return f"{self._frames} frames, {self._bytes} bytes, {dropped} dropped, in {time.monotonic() - self._begun_s:.0f} s"

    def _say_once(self, text: str) -> None:
        if text not in self._silent:
            self._silent[text] = None
            status_line("")
            say(text)


def _quietly(client: Client, id: str) -> None:
    with suppress(Exception):  # a second Ctrl-C ends it in any case
        client.end_capture(id)
