"""The logs of the daemons: for people on a terminal, one JSON object per line everywhere else.

The one rule: what a line is about stands in fields, given as `log.info("...", extra=about(host=..., vif=...))`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TextIO

from vnet.util.printable import on_one_line, printable

FIELDS = (
    "host", "network", "vif", "generation", "revision", "port", "vm", "group", "rule", "tier", "place", "left_out",
)  # fmt: skip


_within: ContextVar[Mapping[str, str | int]] = ContextVar("within", default=MappingProxyType({}))


def within(**fields: str) -> None:
    """Adds fields to every line of this task and of those that it starts."""
    _within.set({**_within.get(), **about(**fields)})


def about(**fields: str | int | None) -> Mapping[str, str | int]:
    """The `extra` of a log call: fields of FIELDS; those that are None are left out."""
    unknown = fields.keys() - set(FIELDS)
    if unknown:
        raise ValueError(f"no log field: {', '.join(sorted(unknown))}")
    return {f"vnet_{name}": value for name, value in fields.items() if value is not None}


def _fields(record: logging.LogRecord) -> dict[str, str | int]:
    return {name: record.__dict__[f"vnet_{name}"] for name in FIELDS if f"vnet_{name}" in record.__dict__}


class JsonFormatter(logging.Formatter):
    """One JSON object per line; `time` in UTC to the millisecond, as in RFC 3339."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # all but ASCII escaped: C1 controls and directions of text too


class TextFormatter(logging.Formatter):
    """One line for a person: time, level, message, then the fields. A traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return on_one_line(super().formatMessage(record) + fields)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def configure(level: int = logging.INFO, stream: TextIO | None = None, **always: str) -> None:
    """Send this process's logs to `stream`, standard error by default; `always` are fields of every line (host=...)."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter() if out.isatty() else JsonFormatter())
    defaults = about(**always)

    def add_defaults(record: logging.LogRecord) -> bool:
        for name, value in {**defaults, **_within.get()}.items():
            record.__dict__.setdefault(name, value)
        return True

    handler.addFilter(add_defaults)
    logging.basicConfig(level=level, handlers=[handler], force=True)
