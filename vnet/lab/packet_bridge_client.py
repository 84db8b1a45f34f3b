"""Requests to a lab's wires process."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from vnet.lab.errors import WiresError
from vnet.lab.names import MARK
from vnet.lab.processes import start, wait_until

SOCKET = "wires.sock"
REAL_TIME = 1  # no more than the switches: they finish their turn first, so each side wakes up once for several frames
ROOT = Path(__file__).parents[2]  # where the packages are, installed or not


def start_wires(directory: Path) -> int:
    """Start the wires process of the lab in `directory`; its process id."""
    env = {MARK: str(directory), "PYTHONPATH": str(ROOT)}
    log = directory / "wires.log"
    command = [sys.executable, "-m", "vnet.lab.packet_bridge", str(directory / SOCKET)]
    pid = start(command, log=log, env=env, real_time=REAL_TIME)
    wait_until((directory / SOCKET).exists, "the lab's wires process", pid=pid, log=log)
    return pid


class WiresClient:
    """One connection; a request at a time, whichever thread asks."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / SOCKET
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def call(self, op: str, *, timeout_s: float = 20.0, **arguments: Any) -> Any:
        """The result of one request. Raises WiresError with the reason."""
        with self._lock:
            data = self._exchange(json.dumps({"op": op, **arguments}).encode() + b"\n", timeout_s)
        reply = json.loads(data)
        if "error" in reply:
            raise WiresError(f"{op}: {reply['error']}")
        return reply["result"]

    def _exchange(self, request: bytes, timeout_s: float) -> bytes:
        try:
            connection = self._connect()
            connection.settimeout(timeout_s)
            connection.sendall(request)
            data = bytearray()
            while not data.endswith(b"\n"):
                if not (more := connection.recv(1 << 20)):
                    raise ConnectionResetError("it hung up")
                data += more
            return bytes(data)
        except OSError as error:
            self.close()
            where = self._path.parent / "wires.log"
            raise WiresError(f"the lab's wires process does not answer ({error}); see {where}") from error

    def _connect(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
