"""Names and numbers that bound a pool's values."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
VIF_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
ANY = "any"  # everybody, as the other side of a rule
SCTP = 132  # the IP protocol (RFC 9260)

# A bridge is named br-<uplink>, and a Linux device name has at most 15 bytes (IFNAMSIZ - 1).
UPLINK_NAME_MAX = 12
DEVICE_NAME_MAX = 15
MIN_MTU, MAX_MTU = 576, 9216
MIN_IPV6_MTU = 1280  # RFC 8200 §5
MAX_TAG = 4094  # 802.1Q: 4095 is reserved, 0 means "no VLAN"
MAX_PORT = 65535
MAX_NUMBER = 2**24 - 1  # of networks and groups, as registers of the pipeline hold them
# ovs-vswitchd gives ports numbers below these by itself, and these only to ports that ask (ovs-vswitchd.conf.db(5), ofport_request).
MIN_RESERVED_OFPORT, MAX_RESERVED_OFPORT = 32768, 65279
MAX_VIFS_OF_VM = 256
MAX_MEMBERS = 16  # of a bond
MAX_RULES = 1000  # of a security group
MAX_REMOTES = 256  # of a rule
MAX_GROUPS_OF_VIF = 32
# Masked matches of ports for each other side (a rule without either has one): of a rule, a group, and all groups of a VIF together.
# One without a CIDR is two flows.
MAX_MATCHES_OF_RULE, MAX_MATCHES_OF_GROUP, MAX_MATCHES_OF_VIF = 1024, 4096, 8192
# The groups that rules on one network may name: packets carry one bit for each while they are looked at.
MAX_REMOTE_GROUPS = 128
MAX_ADDRESSES_OF_SET = 1024
MAX_TITLE = 200  # characters
MAX_LABELS = 16  # of a VM, a VIF or a network
MAX_ADDRESSES_OF_NETWORK = 8192  # of all address sets that rules of its VIFs name
# Rejected packets that are answered in a second: those of a VIF, and those of all VIFs of a host.
REJECTIONS_OF_VIF, REJECTIONS_OF_HOST = 20, 100
# Lines in a host's log about packets of one rule in a second, and packets of a VIF that are looked at for them.
LOGGED_OF_RULE, LOGGED_OF_VIF = 10, 50
# Groups in monitor mode that a VIF may be in. Of each VIF packets a second, of connections that run on, that are looked at for them;
# kinds of connections that a host keeps of a VIF for a group, and that a controller keeps of a group.
MAX_MONITORS_OF_VIF, MONITORED_RUNNING, MONITORED_OF_VIF, MONITORED_OF_GROUP = 8, 2, 64, 1000
DEFAULT_UNDERLAY_MTU = 1500
