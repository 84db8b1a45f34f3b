"""Log lines: JSON with fields off a terminal, text on one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from vnet.util import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_lines_carry_the_fields() -> None:
    out = io.StringIO()
    logs.configure(stream=out, host="xen1")
    log = logging.getLogger("vnet.test")
    log.info("claimed %s", "it", extra=logs.about(vif="web1/0", network=None, generation=7))
    log.error("other host", extra=logs.about(host="xen2"))
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "vnet.test",
        "message": "claimed it",
        "host": "xen1",
        "vif": "web1/0",
        "generation": 7,
    }
    assert second["host"] == "xen2"


def test_an_exception_stays_on_its_line() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("vnet.test").exception("failed")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: a\nb" in json.loads(line)["exception"]


def test_text_on_a_terminal() -> None:
    out = Terminal()
    logs.configure(stream=out)
    logging.getLogger("vnet.test").warning("held", extra=logs.about(vif="web1/0"))
    assert out.getvalue().endswith("WARNING held vif=web1/0\n")


def test_a_field_nobody_searches_for_is_refused() -> None:
    with pytest.raises(ValueError, match="no log field: colour"):
        logs.about(colour="red")


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_no_control_character_from_outside_reaches_a_terminal(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    hostile = "a\x1b[2Jb\x9b2Jc\u202e\rd\nforged line"
    try:
        raise ValueError(hostile)
    except ValueError:
        logging.getLogger("vnet.test").exception("bad %s", hostile, extra=logs.about(vif=hostile))
    text = stream.getvalue()
    assert {char for char in text if not char.isprintable()} == {"\n"}
    assert "forged line" in text.splitlines()[0], "a message is one line"
