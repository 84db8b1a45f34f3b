"""The first daemons of a lab, forked by one process that has loaded their code: loading it takes most of a start's time.

One rule: a forked daemon differs from an executed one in its command line only: namespace, session and log are its own.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from vnet.lab.errors import LabError
from vnet.lab.ports import enter

COMMAND = "vnet.cli.main"
MODULES = (COMMAND, "vnet.cli.agent", "vnet.agent.daemon", "vnet.cli.controller")
MAX_MESSAGE = 65536


class Preloaded:
    """The process that forks daemons. A context manager: it ends at the end, and its daemons go on."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vnet.lab.preload"], env={**os.environ, **env}, cwd="/", start_new_session=True,
                stdin=far.fileno(), stdout=output, stderr=output,
            )  # fmt: skip

    def start(self, args: Sequence[str], *, log: Path, netns: Path | None) -> int:
        """Fork a process that runs `vnet ARGS...`; its id. Raises LabError."""
        request = {"args": args, "log": str(log), "netns": str(netns) if netns else None}
        with self._lock:
            try:
                self._socket.send(json.dumps(request).encode())
                return int(self._socket.recv(MAX_MESSAGE))
            except (OSError, ValueError):
                raise LabError(f"the process that starts the lab's daemons has ended; see {self._log}") from None

    def __enter__(self) -> Preloaded:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait()


def _become(request: dict[str, Any]) -> int:
    """Run a command line in this process, which was forked for it; the code to exit with."""
    os.setsid()
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


def main() -> None:
    """Fork a daemon for each request on standard input, and answer with its process id."""
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()  # so that no daemon's collector writes to the pages that they share
    requests = socket.socket(fileno=0)
    while request := requests.recv(MAX_MESSAGE):
        if (pid := os.fork()) == 0:
            sys.exit(_become(json.loads(request)))
        requests.send(str(pid).encode())


if __name__ == "__main__":
    main()
