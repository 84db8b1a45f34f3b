"""Rates as people write them, and the values they become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.grammar.declare import InvalidValue
from vnet.grammar.value_types import ValueRefused
from vnet.objects import QosClass
from vnet.objects.qos import (
    BURST,
    MAX_RATE_BPS,
    MIN_BURST_BITS,
    MIN_RATE_BPS,
    PACKETS,
    RATE,
    Quantity,
)


@pytest.mark.parametrize(
    ("kind", "text", "value", "written"),
    [
        (RATE, "100mbit", 100_000_000, "100mbit"),
        (RATE, "1.5 Gbit", 1_500_000_000, "1500mbit"),
        (RATE, "500kbit", 500_000, "500kbit"),
        (RATE, "100kib/s", 819_200, "819.2kbit"),  # xenopsd multiplies kbps by 1,024
        (RATE, "1MiB/s", 8_388_608, "8388.608kbit"),
        (BURST, "1mb", 8_000_000, "1mb"),
        (BURST, "256kb", 2_048_000, "256kb"),
        (BURST, "8mbit", 8_000_000, "1mb"),
        (BURST, "129kbit", 129_000, "129kbit"),
        (PACKETS, "20kpps", 20_000, "20kpps"),
        (PACKETS, "750pps", 750, "750pps"),
    ],
)
def test_a_number_with_its_unit(kind: Quantity, text: str, value: int, written: str) -> None:
    assert kind.parse(text) == value
    assert kind.plain(value) == written
    assert kind.parse(written) == value


@pytest.mark.parametrize(
    ("kind", "text", "message", "hint"),
    [
        (RATE, "100", "has no unit", "100mbit"),
        (RATE, "100kbps", "has the unit 'kbps'", "100kib/s"),
        (RATE, "1mb", "has the unit 'mb'", "1mbit"),
        (RATE, "fast", "no number with a unit", ""),
        (RATE, "-5mbit", "no number with a unit", ""),
        (RATE, "9" * 5000, "no number with a unit", ""),
        (RATE, "٣mbit", "no number with a unit", ""),
        (RATE, "0.0001kbit", "no whole number of bits", ""),
        (RATE, "1kbit", "wanted 64kbit to 1000gbit", ""),
        (BURST, "1000", "has no unit", "1000kb"),
        (PACKETS, "20k", "has the unit 'k'", "20kpps"),
        (PACKETS, "0.5pps", "no whole number", ""),
    ],
)
def test_what_is_no_quantity_is_refused_with_what_may_be_meant(
    kind: Quantity, text: str, message: str, hint: str
) -> None:
    with pytest.raises(ValueRefused, match=message) as refused:
        kind.parse(text)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"from_vm": MIN_RATE_BPS - 1}, "from_vm"),
        ({"to_vm": MAX_RATE_BPS + 1}, "to_vm"),
        ({"from_vm": 10**6, "burst": MIN_BURST_BITS - 1}, "burst"),
        ({"packets": 0}, "packets"),
        ({"dscp": 64}, "dscp"),
        ({"packets": 5, "burst": MIN_BURST_BITS}, "burst"),
        ({"from_vm": 10**6, "dscp": 1, "aggregate": True}, "dscp"),
        ({"aggregate": True}, ""),
    ],
)
def test_limits_that_no_switch_could_keep_are_refused(limits: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        QosClass("silver", **limits)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_the_burst_follows_from_the_rate_unless_it_is_given() -> None:
    assert QosClass("a", from_vm=10**7).burst_of(10**7) == 5 * 10**6
    assert QosClass("a", from_vm=MIN_RATE_BPS).burst_of(MIN_RATE_BPS) == MIN_BURST_BITS
    assert QosClass("a", from_vm=10**7, burst=10**6).burst_of(10**7) == 10**6


@given(st.integers(MIN_RATE_BPS, 10**9))
def test_a_rate_is_read_as_it_is_written(bps: int) -> None:
    assert RATE.parse(RATE.plain(bps)) == bps
