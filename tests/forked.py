"""Processes of `vnet` for tests, forked by one that has loaded the code of controllers and agents: loading it is most of what a start costs.

One rule: a forked process is to a test what an executed one is: its log, environment and status are its own, and it ends with the tests.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.servers import die_with_parent
from vnet.lab.preload import COMMAND, MAX_MESSAGE, MODULES

ROOT = Path(__file__).parents[1]


class Forked:
    """A process: what tests need of subprocess.Popen. status: a pipe on which its wait status comes when it has ended."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._status)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        if (code := self._ended(timeout)) is None:
            raise subprocess.TimeoutExpired(["vnet"], timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            read = os.read(self._status, 16)
            # Without a status its parent was killed, and it with its parent.
            self.returncode = os.waitstatus_to_exitcode(int(read)) if read else -signal.SIGKILL
            os.close(self._status)
        return self.returncode


class _Forker:
    """The process that forks, as long as this one lives."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def start(self, args: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> Forked:
        if self._socket is None:
            self._socket = self._load()
        request = {"args": [*map(str, args)], "env": {**os.environ, **env}, "cwd": os.getcwd()}
        read, write = os.pipe()
        with log.open("ab") as out, os.fdopen(write, "wb"):
            socket.send_fds(self._socket, [json.dumps(request).encode()], [write, out.fileno()])
        return Forked(int(self._socket.recv(16)), read)

    def _load(self) -> socket.socket:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
        with far:
            # It ends with its socket's other end, and what it has forked ends with it.
            subprocess.Popen(
                [sys.executable, "-m", "tests.forked"], cwd=ROOT, stdin=far.fileno(), start_new_session=True
            )
        return near


_FORKER = _Forker()


def fork_vnet(args: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None) -> Forked:
    """Start `vnet ARGS...`, which dies with us."""
    return _FORKER.start(args, log, env or {})


def main() -> None:
    """Fork a process for each request on standard input, answer with its id, and write its wait status to its pipe when it ends."""
    for module in (*MODULES, "uvicorn"):
        import_module(module)
    gc.collect()
    gc.freeze()  # so that no process's collector writes to the pages that they share
    requests = socket.socket(fileno=os.dup(0))
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    pipes: dict[int, int] = {}  # of the processes that run
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _report(pipes)
        if requests in ready:
            message, received, _, _ = socket.recv_fds(requests, MAX_MESSAGE, 2)
            if not message:
                return
            pipe, log = received
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                requests.detach()
                sys.exit(_become(json.loads(message), log))
            os.close(log)
            pipes[pid] = pipe
            requests.send(str(pid).encode())


def _report(pipes: dict[int, int]) -> None:
    """Tell of each process that has ended."""
    for pid in list(pipes):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            pipe = pipes.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, str(status).encode())
            os.close(pipe)


def _become(request: dict[str, Any], log: int) -> int:
    die_with_parent()
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    os.closerange(3, max(int(name) for name in os.listdir("/proc/self/fd")) + 1)
    code: int = import_module(COMMAND).run(request["args"])
    return code


if __name__ == "__main__":
    main()
