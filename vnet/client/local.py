"""The agent's local socket, for toolstacks on the host itself: one JSON object per line each way."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

import msgspec

from vnet.api.errors import BadAnswer, ClientError, Unreachable

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


class _AgentAnswer(msgspec.Struct):
    result: Any = None
    error: _Error | None = None


class LocalAgent:
    """A connection to this host's agent; a context manager. For calls that should not wait for one, as `switch`.

    Raises Unreachable, LocalRefused, BadAnswer.
    """

    def __init__(self, path: str = DEFAULT_SOCKET, timeout_s: float = 10.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise self._unreachable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, method: str, params: dict[str, str]) -> None:
        """Makes one call and waits for no answer."""
        try:
            self._socket.sendall(msgspec.json.encode({"method": method, "params": params}) + b"\n")
        except OSError as error:
            raise self._unreachable(error) from None

    def call(self, method: str, params: dict[str, str]) -> Any:
        """The result of one call, as `call("switch", {"vm": "web1"})`."""
        self.send(method, params)
        try:
            line = _line(self._socket)
        except OSError as error:
            raise self._unreachable(error) from None
        try:
            answer = msgspec.json.decode(line, type=_AgentAnswer)
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"{self._path}: {error}") from None
        if answer.error is not None:
            raise LocalRefused(answer.error.code, answer.error.message)
        return answer.result

    def _unreachable(self, error: OSError) -> Unreachable:
        return Unreachable(f"the agent of this host does not answer on {self._path}: {error}")


def call_agent(method: str, params: dict[str, str], path: str = DEFAULT_SOCKET, timeout_s: float = 10.0) -> Any:
    """Call this host's agent once, as in `call_agent("plug", {"vif": "web1/0", "port": "tap3"})`; returns its result.

    Raises as `LocalAgent`. Plugging what is plugged so already is no error, so a call may be repeated.
    """
    with LocalAgent(path, timeout_s) as agent:
        return agent.call(method, params)


def _line(connection: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = connection.recv(1 << 16)
        data += chunk
        if not chunk or len(data) > MAX_ANSWER_BYTES:
            raise BadAnswer(f"the agent's answer ended in the middle, after {len(data)} bytes")
    return bytes(data)
