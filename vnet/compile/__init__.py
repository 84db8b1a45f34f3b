"""From the rows of a pool to the rows and flows that one host's Open vSwitch should hold. Pure: reads a HostView and returns values."""

from vnet.compile.compiler import Change, Compiler, compile_flows, flat, meters_of
from vnet.compile.features import FEATURES, Feature, Source
from vnet.compile.flows import FlowKey, Key, key_of
from vnet.compile.guard import CHOICE, Privilege, privilege_for
from vnet.compile.inputs import HostInputs, LocalNetwork, StateIndex
from vnet.compile.ovs import Switch, ovs_rows, tunnels_in_use, vif_mtus
from vnet.compile.parts import GROUPS
from vnet.compile.pipeline import (
    COOKIE_CATEGORY_SHIFT,
    COOKIE_MARK,
    COOKIE_MARK_MASK,
    COOKIE_OBJECT_MASK,
    PIPELINE,
    REG_LOG,
    REG_PORT,
    Category,
    From,
    Table,
    cookie,
)
from vnet.compile.probe import HOPS, Note, Stage, bare, mark, marked_fields, read_note, refusal
from vnet.compile.rates import OF_NETWORK, OF_VIF, OURS, Limit
from vnet.compile.rejection import Rejected, Reply, is_rejection, reply_to
from vnet.compile.rule_log import LogEntry, Logged, entry_of, is_logged
from vnet.compile.security import DIRECTIONS, rule_cookie, rule_tag, zones_of
from vnet.compile.uplink import UplinkPorts, announced_tags, announcements_out, uplink_flows
from vnet.compile.view import HostView, Role
from vnet.compile.vif import ANNOUNCEMENT, LEARNED_PRIORITY, gate_flow

__all__ = [
    "ANNOUNCEMENT",
    "CHOICE",
    "COOKIE_CATEGORY_SHIFT",
    "COOKIE_MARK",
    "COOKIE_MARK_MASK",
    "COOKIE_OBJECT_MASK",
    "DIRECTIONS",
    "FEATURES",
    "GROUPS",
    "HOPS",
    "LEARNED_PRIORITY",
    "OF_NETWORK",
    "OF_VIF",
    "OURS",
    "PIPELINE",
    "REG_LOG",
    "REG_PORT",
    "Category",
    "Change",
    "Compiler",
    "Feature",
    "FlowKey",
    "From",
    "HostInputs",
    "HostView",
    "Key",
    "Limit",
    "LocalNetwork",
    "LogEntry",
    "Logged",
    "Note",
    "Privilege",
    "Rejected",
    "Reply",
    "Role",
    "Source",
    "Stage",
    "StateIndex",
    "Switch",
    "Table",
    "UplinkPorts",
    "announced_tags",
    "announcements_out",
    "bare",
    "compile_flows",
    "cookie",
    "entry_of",
    "flat",
    "gate_flow",
    "is_logged",
    "is_rejection",
    "key_of",
    "mark",
    "marked_fields",
    "meters_of",
    "ovs_rows",
    "privilege_for",
    "read_note",
    "refusal",
    "reply_to",
    "rule_cookie",
    "rule_tag",
    "tunnels_in_use",
    "uplink_flows",
    "vif_mtus",
    "zones_of",
]
