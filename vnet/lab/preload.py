"""The first daemons of labs, forked by one process that has loaded their code: loading it takes most of a start's time.

One rule: a forked daemon differs from an executed one in its command line only: environment, namespace, session and log are its own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from vnet.lab.errors import LabError
from vnet.lab.names import MARK
from vnet.lab.ports import enter

COMMAND = "vnet.cli.main"
MODULES = (
    COMMAND,
    "vnet.cli.agent",
    "vnet.agent.daemon",
    "vnet.cli.controller",
    "vnet.cli.wireguard",
    "vnet.wireguard.service",
)
MAX_MESSAGE = 1 << 20
ROOM = 4096  # bytes of the environment for the mark of a lab, which is a path


class Preloaded:
    """The process that forks daemons, for all labs that this process starts. It ends with this process, and its daemons go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self, args: Sequence[str], *, env: Mapping[str, str], log: Path, netns: Path | None) -> int:
        """Fork a process that runs `vnet ARGS...`; its id. env: what is its own, with the lab's mark. Raises LabError."""
        request = {"args": args, "env": {**os.environ, **env}, "log": str(log), "netns": str(netns) if netns else None}
        with self._lock:
            if self._socket is None or self._process is None or self._process.poll() is not None:
                self._socket = self._load(env)
            try:
                self._socket.send(json.dumps(request).encode())
                return int(self._socket.recv(MAX_MESSAGE))
            except (OSError, ValueError):
                raise LabError("the process that starts daemons of labs has ended") from None

    def _load(self, env: Mapping[str, str]) -> socket.socket:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vnet.lab.preload"], env={**os.environ, **env, MARK: " " * ROOM}, cwd="/",
                start_new_session=True, stdin=far.fileno(), stdout=subprocess.DEVNULL,
            )  # fmt: skip
        return near


def _become(request: dict[str, Any], requests: socket.socket) -> int:
    """Run a command line in this process, which was forked for it; the code to exit with."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _carry(request["env"][MARK])
    with requests:  # answered only now: whoever knows of a daemon finds it by its mark
        requests.send(str(os.getpid()).encode())
    os.environ.clear()
    os.environ.update(request["env"])
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    if request["netns"] is not None:
        enter(request["netns"])
    code: int = import_module(COMMAND).run(request["args"])
    return code


def _carry(mark: str) -> None:
    """Put the lab's mark where /proc shows a process's environment: the memory that it was executed with."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    ctypes.memmove(libc.getenv(MARK.encode()), os.fsencode(mark).ljust(ROOM, b"\0"), ROOM)


def main() -> None:
    """Fork a daemon for each request on standard input; it answers with its process id."""
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()  # so that no daemon's collector writes to the pages that they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # daemons that end are nobody's to wait for
    requests = socket.socket(fileno=0)
    while request := requests.recv(MAX_MESSAGE):
        if os.fork() == 0:
            sys.exit(_become(json.loads(request), requests))


if __name__ == "__main__":
    main()
