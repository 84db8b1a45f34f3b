"""Filters of packets, asked about a frame as a switch would read it."""

from __future__ import annotations

from ovsctl.datapath.flow_extract import extract
from ovsctl.datapath.flow_key import compile_match
from ovsctl.openflow import Match
from vnet.grammar.packet_filter import PacketFilter


def wants(wanted: PacketFilter, frame: bytes) -> bool:
    """Whether a filter wants a frame."""
    key = extract(frame, 0)
    for rule in wanted.rules:
        mask, value = compile_match(Match(**rule.match))
        if key & mask == value:
            return rule.wanted
    return False
