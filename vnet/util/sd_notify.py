"""Tells systemd how a daemon is doing (sd_notify(3)). Without systemd: nothing."""

from __future__ import annotations

import os
import socket


def sd_notify(state: str) -> None:
    """Sends "READY=1", "STOPPING=1" or "STATUS=..." to the service manager, if there is one."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
