"""From the rows of a pool to the rows and flows that one host's Open vSwitch should hold. Pure: reads a HostView and returns values."""

from vnet.compile.accounting import AS_VIF, Lane, lane_of
from vnet.compile.capture import (
    Flowing,
    Tapped,
    as_delivered,
    filtered_by_agent,
    meter_of_capture,
    read_tapped,
    tapped_here,
)
from vnet.compile.compiler import Compiler, SourceChange, compile_flows, flat, meters_of
from vnet.compile.features import FEATURES, Feature, FlowSource
from vnet.compile.flows import FlowKey, Key, key_of
from vnet.compile.guard import CHOICE, WATCHED, Privilege, privilege_for
from vnet.compile.hello import HELLO, HELLO_BY, HELLO_KEY, OF_HELLO, uplink_hello_flows
from vnet.compile.inputs import CAPTURES, CaptureTap, HostInputs, LocalNetwork, StateIndex, inner_addresses
from vnet.compile.l2 import copies_by_tunnel, tunnel_ends, tunnels_here
from vnet.compile.learning import HEARD, OF_HEARD
from vnet.compile.monitoring import DIRECTION_OF as MONITORS
from vnet.compile.monitoring import FIRST, OF_FIRST, OF_RUNNING, WouldForbid, counted_of, is_monitored, would_forbid
from vnet.compile.multicast import OF_REPORTS, REPORT
from vnet.compile.overheard import CLAIM_BY, LLDP_BY, WatchedAddress, claim_flows, lldp_flows
from vnet.compile.ovs import Switch, ovs_rows, tunnels_in_use, vif_mtus, way_out
from vnet.compile.parts import GROUPS
from vnet.compile.pipeline import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    COOKIE_OBJECT_MASK,
    PIPELINE,
    REG_GROUP,
    REG_LOG,
    REG_PORT,
    Category,
    From,
    Table,
    cookie,
)
from vnet.compile.probe import HOPS, ProbeNote, WatchPoint, bare, mark, marked_fields, read_note, refusal
from vnet.compile.rates import OF_FLOODED, OF_NETWORK, OF_VIF, OURS, Flooded, Limit, storm_meters
from vnet.compile.rejection import OF_REJECT, Rejected, RejectReply, is_rejection, reply_to
from vnet.compile.rule_log import OF_LOG, LogEntry, Logged, entry_of, is_logged
from vnet.compile.security import DIRECTIONS, rule_cookie, rule_tag, segments_of, zones_of
from vnet.compile.uplink import UplinkPorts, announced_tags, announcements_out, uplink_flows
from vnet.compile.view import HostView, VifRole
from vnet.compile.vif import ANNOUNCEMENT, LEARNED_PRIORITY, gate_flow

__all__ = [
    "ANNOUNCEMENT",
    "AS_VIF",
    "CAPTURES",
    "CHOICE",
    "CLAIM_BY",
    "COOKIE_CATEGORY_SHIFT",
    "COOKIE_MARK",
    "COOKIE_MARK_MASK",
    "COOKIE_OBJECT_MASK",
    "DIRECTIONS",
    "FEATURES",
    "FIRST",
    "GROUPS",
    "HEARD",
    "HELLO",
    "HELLO_BY",
    "HELLO_KEY",
    "HOPS",
    "LEARNED_PRIORITY",
    "LLDP_BY",
    "MONITORS",
    "OF_FIRST",
    "OF_FLOODED",
    "OF_HEARD",
    "OF_HELLO",
    "OF_LOG",
    "OF_NETWORK",
    "OF_REJECT",
    "OF_REPORTS",
    "OF_RUNNING",
    "OF_VIF",
    "OURS",
    "PIPELINE",
    "REG_GROUP",
    "REG_LOG",
    "REG_PORT",
    "REPORT",
    "WATCHED",
    "CaptureTap",
    "Category",
    "Compiler",
    "Feature",
    "Flooded",
    "FlowKey",
    "FlowSource",
    "Flowing",
    "From",
    "HostInputs",
    "HostView",
    "Key",
    "Lane",
    "Limit",
    "LocalNetwork",
    "LogEntry",
    "Logged",
    "Privilege",
    "ProbeNote",
    "RejectReply",
    "Rejected",
    "SourceChange",
    "StateIndex",
    "Switch",
    "Table",
    "Tapped",
    "UplinkPorts",
    "VifRole",
    "WatchPoint",
    "WatchedAddress",
    "WouldForbid",
    "announced_tags",
    "announcements_out",
    "as_delivered",
    "bare",
    "claim_flows",
    "compile_flows",
    "cookie",
    "copies_by_tunnel",
    "counted_of",
    "entry_of",
    "filtered_by_agent",
    "flat",
    "gate_flow",
    "inner_addresses",
    "is_logged",
    "is_monitored",
    "is_rejection",
    "key_of",
    "lane_of",
    "lldp_flows",
    "mark",
    "marked_fields",
    "meter_of_capture",
    "meters_of",
    "ovs_rows",
    "privilege_for",
    "read_note",
    "read_tapped",
    "refusal",
    "reply_to",
    "rule_cookie",
    "rule_tag",
    "segments_of",
    "storm_meters",
    "tapped_here",
    "tunnel_ends",
    "tunnels_here",
    "tunnels_in_use",
    "uplink_flows",
    "uplink_hello_flows",
    "vif_mtus",
    "way_out",
    "would_forbid",
    "zones_of",
]
