"""The socket of a service manager (sd_notify(3)), and all that a daemon under test has sent to it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.polling import wait_until

MAX_BYTES = 65536


class ServiceManager:
    """A context manager. sent: every state that came, in order, without those of the watchdog; beats: how many of those came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sent: list[str] = []
        self.beats = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    @property
    def env(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path)}

    @property
    def ready(self) -> bool:
        return "READY=1" in self._read()

    @property
    def status(self) -> str:
        """The last status line."""
        texts = [state.removeprefix("STATUS=") for state in self._read() if state.startswith("STATUS=")]
        return texts[-1] if texts else ""

    def wait(self, condition: Callable[[ServiceManager], object], expected: str) -> None:
        try:
            wait_until(lambda: condition(self), expected)
        except TimeoutError as error:
            error.add_note(f"it sent {self.sent}")
            raise

    def wait_status(self, text: str) -> None:
        """Returns once the status line has this text."""
        self.wait(lambda manager: text in manager.status, f"status {text!r}")

    def _read(self) -> list[str]:
        while True:
            try:
                states = self._socket.recv(MAX_BYTES).decode().split("\n")
            except BlockingIOError:
                return self.sent
            self.beats += states.count("WATCHDOG=1")
            self.sent += [state for state in states if state != "WATCHDOG=1"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
