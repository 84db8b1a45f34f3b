"""The follower as a service: started, watched and stopped by the service manager. One rule: how far it is stands in a file that anybody of its group reads."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import secrets
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TextIO

from vnet.client import Client
from vnet.util.files import replace_file
from vnet.util.sd_notify import sd_notify
from vnet.xapi.follower import Follower
from vnet.xapi.session import Credentials, XapiSession

log = logging.getLogger(__name__)


def follow_until_stopped(client: Client, addresses: tuple[str, ...], credentials: Credentials, state: Path) -> None:
    """Follows until SIGTERM or SIGINT. Raises OSError, if another follower has the file for one."""
    with Path(f"{state}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another follower has {state}: stop it first, or name another --state") from None
        _follow(client, addresses, credentials, state, _name(lock))


def _name(lock: TextIO) -> str:
    """The follower's name. It is the same after a restart, which then waits for nobody, and no other machine's, be they called alike."""
    lock.seek(0)
    number = lock.read(8)
    if not re.fullmatch("[0-9a-f]{8}", number):
        number = secrets.token_hex(4)
        lock.truncate(0)
        lock.write(number)
        lock.flush()
    return f"machine {socket.gethostname()} ({number})"


def _follow(client: Client, addresses: tuple[str, ...], credentials: Credentials, state: Path, name: str) -> None:

    def written() -> None:
        now = follower.state
        read = datetime.fromtimestamp(now.read, UTC).isoformat(timespec="seconds") if now.read is not None else "never"
        found = {"pool": now.pool, "master": now.master, "time": read, "behind": now.behind, "problems": now.problems,
                 "follower": now.holder or name, "standby": name if now.holder else now.standby}  # fmt: skip
        replace_file(state, json.dumps(found).encode(), 0o640)
        ready = ["READY=1"] if now.read is not None or now.holder else []
        sd_notify(
            "WATCHDOG=1",
            *ready,
            f"STATUS=pool {now.pool or '-'}, {f'stands by for {now.holder}' if now.holder else f'{now.behind} VMs behind'}, {len(now.problems)} problems",
        )

    def stop(_: int, __: FrameType | None) -> None:
        follower.stop()

    follower = Follower(client, lambda address: XapiSession(address, credentials), addresses, time.time, written, name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("following the pool of %s", ", ".join(addresses))
    follower.run()
