"""The service manager's side of a daemon: readiness, status line and watchdog (sd_notify(3)). Without systemd: nothing."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def sd_notify(*states: str) -> None:
    """Sends states as "READY=1", "STATUS=..." or "WATCHDOG=1" in one message, if there is a service manager."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(states).encode(), address)


def watchdog_s() -> float | None:
    """The time within which the service manager wants a "WATCHDOG=1", None if it wants none (sd_watchdog_enabled(3))."""
    pid, text = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not text.isdigit() or not int(text) or pid not in ("", str(os.getpid())):
        return None
    return int(text) / 1_000_000
