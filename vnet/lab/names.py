"""Names of a lab's parts. One rule: all follow from the lab's name, so that `down` finds them again without help."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from vnet.lab.errors import LabUnsupported

DEVICE_NAME_MAX = 15  # Linux: IFNAMSIZ - 1
NETNS_DIR = Path("/run/netns")  # where iproute2 keeps named network namespaces
MARK = "VNET_LAB"  # environment variable of every process of a lab: the lab's directory
TAG_LENGTH = 6
# The management network is RFC 2544's, which no document should use; the controller is its first address.
MANAGEMENT = "198.18"
CONTROLLER_ADDRESS = f"{MANAGEMENT}.0.1"
POOL_PORT = 6640


def short(name: str, limit: int) -> str:
    """`name`, or if it is longer than `limit` a beginning of it and a hash of the whole."""
    if len(name) <= limit:
        return name
    tag = hashlib.sha256(name.encode()).hexdigest()[:TAG_LENGTH]
    return f"{name[: limit - TAG_LENGTH - 1]}-{tag}"


def base_dir() -> Path:
    """Where this user's labs keep their files: VNET_LAB_DIR, or /run/vnet-lab for root. Raises LabUnsupported for one in a directory that all may
    write to, unless it is the user's alone: who else had made it could replace what is in it."""
    if chosen := os.environ.get("VNET_LAB_DIR"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/vnet-lab")
    directory = Path(tempfile.gettempdir()) / f"vnet-lab-{os.geteuid()}"
    with suppress(FileNotFoundError):
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise LabUnsupported(
                f"{directory} is no directory of yours that is closed to others: remove it, or set VNET_LAB_DIR"
            )
    return directory


def lab_dir(lab: str) -> Path:
    return base_dir() / short(lab, 24)  # unix socket paths have at most 107 bytes


def host_netns(lab: str, host: str) -> str:
    return f"{lab}-{host}"


def vm_netns(lab: str, vm: str) -> str:
    return f"{lab}-vm-{vm}"


def underlay_netns(lab: str) -> str:
    return f"{lab}-underlay"


def wireguard_netns(lab: str, host: str) -> str:
    return f"{lab}-{host}-wg"


def vif_device(vm: str, index: int) -> str:
    """The host's end of a VIF: `web1.0`."""
    suffix = f".{index}"
    return short(vm, DEVICE_NAME_MAX - len(suffix)) + suffix


def host_mac(index: int) -> str:
    """The MAC of br-phy on the lab's host number `index`."""
    return f"02:56:4c:00:{index >> 8:02x}:{index & 0xFF:02x}"


def management_address(index: int) -> str:
    """The address of the lab's host number `index` on the management network."""
    return f"{MANAGEMENT}.{1 + (index >> 8)}.{index & 0xFF}"


def vtep_prefix(addresses: list[str], version: int) -> int:
    """Length of the smallest prefix that holds all VTEPs of one family, at most /24 or /64: the underlay is one link."""
    limit, bits = (24, 32) if version == 4 else (64, 128)
    numbers: list[IPv4Address | IPv6Address] = [a for a in map(ip_address, addresses) if a.version == version]
    if not numbers:
        return limit
    differing = int(min(numbers, key=int)) ^ int(max(numbers, key=int))
    return min(limit, bits - differing.bit_length())


def vtep_network(address: str, prefix: int) -> str:
    return str(ip_network(f"{address}/{prefix}", strict=False))
