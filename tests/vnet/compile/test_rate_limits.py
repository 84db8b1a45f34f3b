"""Rates as they are written, and the values they become."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.grammar.declare import InvalidValue
from vnet.objects.rates import (
    MAX_RATE_BPS,
    MIN_BURST_BITS,
    MIN_RATE_BPS,
    RateLimit,
    format_rate,
    parse_burst,
    parse_packets,
    parse_rate,
    rate_from_xenserver,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_rate, "100mbit", 100_000_000),
        (parse_rate, "1.5 Gbit", 1_500_000_000),
        (parse_rate, "500kbit", 500_000),
        (parse_burst, "1mb", 8_000_000),
        (parse_burst, "256kb", 2_048_000),
        (parse_burst, "8mbit", 8_000_000),
        (parse_packets, "20kpps", 20_000),
        (parse_packets, "750pps", 750),
    ],
)
def test_a_number_with_its_unit(parse: Callable[[str, str], int], text: str, value: int) -> None:
    assert parse("qos", text) == value


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_rate, "100", "has no unit"),
        (parse_rate, "100kbps", "'kbps' is no unit here"),
        (parse_rate, "1mb", "'mb' is no unit here"),
        (parse_rate, "fast", "no number with a unit"),
        (parse_rate, "-5mbit", "no number with a unit"),
        (parse_rate, "0.0001kbit", "no whole number of bits"),
        (parse_burst, "1000", "has no unit"),
        (parse_packets, "20k", "'k' is no unit here"),
        (parse_packets, "0.5pps", "no whole number of packets"),
    ],
)
def test_a_number_without_its_unit_is_refused(parse: Callable[[str, str], int], text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as refused:
        parse("from-vm", text)
    assert refused.value.field == "from-vm"


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        ({"from_vm_bps": MIN_RATE_BPS - 1}, "from_vm"),
        ({"to_vm_bps": MAX_RATE_BPS + 1}, "to_vm"),
        ({"from_vm_bps": 10**6, "burst_bits": MIN_BURST_BITS - 1}, "burst"),
        ({"packets_per_s": 0}, "packets"),
        ({"dscp": 64}, "dscp"),
        ({"packets_per_s": 5, "burst_bits": MIN_BURST_BITS}, "burst"),
        ({"from_vm_bps": 10**6, "dscp": 1, "aggregate": True}, "dscp"),
    ],
)
def test_limits_that_no_switch_could_keep_are_refused(limit: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        RateLimit(**limit)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_the_burst_follows_from_the_rate_unless_it_is_given() -> None:
    assert RateLimit(from_vm_bps=10**7).burst_of(10**7) == 5 * 10**6
    assert RateLimit(from_vm_bps=MIN_RATE_BPS).burst_of(MIN_RATE_BPS) == MIN_BURST_BITS
    assert RateLimit(from_vm_bps=10**7, burst_bits=10**6).burst_of(10**7) == 10**6


def test_kbps_of_xenserver_are_kilobytes() -> None:
    assert rate_from_xenserver("1000") == 8_192_000
    for wrong in ("", "0", "-1", "1.5", "ten"):
        with pytest.raises(InvalidValue, match="kilobytes"):
            rate_from_xenserver(wrong)


@given(st.integers(1, 10**9))
def test_a_rate_is_read_as_it_is_written(bps: int) -> None:
    assert parse_rate("rate", format_rate(bps)) == bps
