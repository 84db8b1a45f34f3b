"""Logs that strangers can write to."""

from __future__ import annotations

import logging

import pytest

from vnet.util.repeated_lines import FEW, PERIOD_S, RepeatedLines


def test_the_first_few_of_each_period_and_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = logging.getLogger("strangers")
    repeated = RepeatedLines(lambda: now[0])
    log.addFilter(repeated)
    try:
        for number in range(1000):
            log.warning("bad request %d", number)
        log.warning("something else")
        assert caplog.messages == [*(f"bad request {n}" for n in range(FEW)), "something else"]
        now[0] = PERIOD_S
        log.warning("bad request %d", 1000)
        log.warning("something else")
        assert caplog.messages[FEW + 1 :] == [
            f"bad request 1000 ({1000 - FEW} more of the kind were left out)",
            "something else",
        ]
    finally:
        log.removeFilter(repeated)
