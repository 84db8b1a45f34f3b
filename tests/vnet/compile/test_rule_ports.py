"""Ports of rules as masked matches: exactly the ports, each in one match, few of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vnet.objects.limits import MAX_PORT
from vnet.objects.values import PortRange, port_masks


def ranges(ports: set[int]) -> tuple[PortRange, ...]:
    return PortRange.merged(PortRange(port, port) for port in ports)


SPANS = st.builds(
    lambda first, length: set(range(first, min(first + length, MAX_PORT + 1))),
    st.integers(0, MAX_PORT),
    st.integers(1, 300),
)


@given(st.lists(st.one_of(SPANS, st.sets(st.integers(0, 255), min_size=1)), min_size=1, max_size=4))
def test_matches_are_exactly_the_ports_each_once(parts: list[set[int]]) -> None:
    ports = set().union(*parts)
    masks = port_masks(ranges(ports))
    free = [~mask & MAX_PORT for _, mask in masks]
    assert sum(2 ** bits.bit_count() for bits in free) == len(ports), "none is in two matches"
    assert {port for port in ports if any(port & mask == value for value, mask in masks)} == ports


def test_evenly_spaced_ports_take_one_match() -> None:
    assert port_masks(ranges(set(range(1, 65536, 2)))) == ((1, 1),)
    assert port_masks(ranges(set(range(0, 65536, 4)))) == ((0, 3),)
    assert port_masks((PortRange(0, MAX_PORT),)) == ((0, 0),)
    assert len(port_masks((PortRange(1, MAX_PORT - 1),))) == 30
    assert port_masks(()) == ()
