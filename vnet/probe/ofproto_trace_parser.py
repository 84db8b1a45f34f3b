"""The text of ofproto/trace (ovs-vswitchd(8)) as values: a real switch's decisions about a frame.

One rule: steps are the integration bridge's look-ups alone. Of bridges behind patch ports and native tunnels, which the text
has too, only the warnings are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

_BRIDGE = re.compile(r'( *)bridge\("(.*)"\)')
_TABLE = re.compile(r"( *)(\d+)\. (.*)")
_FLOW = re.compile(r"(?:(.*), )?priority (\d+)(?:, cookie (0x[0-9a-f]+))?")
_SET = re.compile(r"set_field:(\S+)->(tun_id|tun_dst|tun_ipv6_dst)")
_OUTPUT = re.compile(r"output:(\d+)")
_IS = re.compile(r"-> output port is (\d+)")
_REFUSED = re.compile(r"skipping output|[Nn]onexistent output port|Tunneling decided against")
UNRESOLVED = "neighbor cache miss"  # the first real packet makes the host ask for the peer's MAC


class NotATrace(ValueError):
    """The text is no output of ofproto/trace."""


@dataclass(frozen=True, slots=True)
class RealStep:
    """One look-up in a table. match: "" for everything; priority -1 where no flow matched; cookie 0 for one without."""

    table: int
    match: str
    priority: int
    cookie: int
    actions: tuple[str, ...]


class RealOutput(NamedTuple):
    """A port that a frame leaves by, with the tunnel key and address set last; 0 and "" without."""

    port: int
    key: int
    target: str


@dataclass(frozen=True, slots=True)
class RealPass:
    """A bridge's decisions. dropped: the datapath would send nothing. warnings: the refusals on the way."""

    steps: tuple[RealStep, ...]
    outputs: tuple[RealOutput, ...]
    warnings: tuple[str, ...]
    dropped: bool


def parse_trace(text: str, bridge: str = "br-int") -> RealPass:
    """The values. Raises NotATrace."""
    reader = _TraceReader(bridge)
    for line in text.splitlines():
        reader.line(line)
    if not reader.answered:
        raise NotATrace("the trace does not end with datapath actions")
    steps = tuple(RealStep(*head, tuple(actions)) for head, actions in reader.steps)
    outputs = tuple(output for output, refused in reader.outputs if not refused)
    return RealPass(steps, outputs, tuple(reader.warnings), reader.dropped)


class _TraceReader:
    """Follows the text's indentation: a node's children are deeper, those of a last child at its own depth."""

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self.steps: list[tuple[tuple[int, str, int, int], list[str]]] = []
        self.outputs: list[tuple[RealOutput, bool]] = []
        self.warnings: list[str] = []
        self.answered = False
        self.dropped = True
        self._bridges: list[tuple[int, str]] = []  # depth of a bridge's first table, and its name
        self._heading = ""
        self._in_port = 0
        self._key, self._target = 0, ""

    def line(self, line: str) -> None:
        if line.startswith("Datapath actions: "):
            self.answered = True
            self.dropped = self.dropped and line == "Datapath actions: drop"
        elif line.startswith("Flow: "):
            found = re.search(r"in_port=(\d+)", line)
            self._in_port = int(found[1]) if found is not None else self._in_port
        elif found := _BRIDGE.fullmatch(line):
            self._heading = found[2]
        elif not line.strip(" -"):
            return
        elif line.startswith(" ") or _TABLE.fullmatch(line):
            self._node(line)

    def _node(self, line: str) -> None:
        table = _TABLE.fullmatch(line)
        depth = (len(line) - len(line.lstrip(" "))) // 4
        if self._heading and table is not None:
            self._bridges = [] if depth == 0 else [entry for entry in self._bridges if entry[0] < depth]
            self._bridges.append((depth, self._heading))
            self._heading = ""
        while self._bridges and depth < self._bridges[-1][0]:
            self._bridges.pop()
        text = line.strip()
        if text.startswith(">>") and "skipping output to input port" not in text:
            self.warnings.append(text.strip("<> "))
        if not self._bridges or self._bridges[-1][1] != self.bridge:
            return
        if table is not None:
            self.steps.append((_step(int(table[2]), table[3]), []))
        elif self.steps:
            self._action(text)

    def _action(self, text: str) -> None:
        self.steps[-1][1].append(text)
        if found := _SET.fullmatch(text):
            self._set(found[2], found[1])
        elif found := _OUTPUT.fullmatch(text) or _IS.fullmatch(text):
            self._output(int(found[1]))
        elif text == "IN_PORT":
            self._output(self._in_port)
        elif self.outputs and _REFUSED.search(text):
            self.outputs[-1] = (self.outputs[-1][0], True)

    def _set(self, name: str, value: str) -> None:
        try:
            if name == "tun_id":
                self._key = int(value, 0)
            else:
                self._target = str(ip_address(value))
        except ValueError:
            raise NotATrace(f"not a value of {name}: {value[:60]!r}") from None

    def _output(self, port: int) -> None:
        self.outputs.append((RealOutput(port, self._key, self._target), False))


def _step(table: int, text: str) -> tuple[int, str, int, int]:
    flow = _FLOW.fullmatch(text)
    if flow is None:
        return table, "", -1, 0
    return table, flow[1] or "", int(flow[2]), int(flow[3] or "0", 0)
