"""The agent's local socket, for toolstacks on the host itself: one JSON object per line each way."""

from __future__ import annotations

import socket
from typing import Any

import msgspec

from vnet.client.errors import BadAnswer, ClientError, Unreachable

DEFAULT_SOCKET = "/run/vnet/agent.sock"
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class LocalRefused(ClientError):
    """The agent refused a call. code: invalid, missing, conflict or failed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Error(msgspec.Struct):
    code: str
    message: str


class _Answer(msgspec.Struct):
    result: Any = None
    error: _Error | None = None


def call_agent(method: str, params: dict[str, str], path: str = DEFAULT_SOCKET, timeout_s: float = 10.0) -> Any:
    """Call this host's agent, as in `call_agent("plug", {"vif": "web1/0", "port": "tap3"})`; returns its result.

    Raises Unreachable, LocalRefused, BadAnswer. Plugging what is plugged so already is no error, so a call may be repeated.
    """
    request = msgspec.json.encode({"method": method, "params": params}) + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(path)
            connection.sendall(request)
            line = _line(connection)
    except OSError as error:
        raise Unreachable(f"the agent of this host does not answer on {path}: {error}") from None
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"{path}: {error}") from None
    if answer.error is not None:
        raise LocalRefused(answer.error.code, answer.error.message)
    return answer.result


def _line(connection: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = connection.recv(1 << 16)
        data += chunk
        if not chunk or len(data) > MAX_ANSWER_BYTES:
            raise BadAnswer(f"the agent's answer ended in the middle, after {len(data)} bytes")
    return bytes(data)
