"""Other programs' commands, run to their end."""

from __future__ import annotations

import subprocess

TIMEOUT_S = 10.0
PACKAGES = {
    "ip": "iproute2",
    "wg": "wireguard-tools",
    "nft": "nftables",
    "ovs-vsctl": "openvswitch-switch",
}  # of Debian


class ToolFailed(Exception):
    """A command failed; the message says which, why, and what to do if that is known."""


def run(*args: str, stdin: str | None = None, fine: bool = False, timeout_s: float = TIMEOUT_S) -> str:
    """A command's output. Raises ToolFailed, unless failing is `fine`."""
    try:
        done = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise ToolFailed(f"{args[0]} is not installed: apt-get install {PACKAGES.get(args[0], args[0])}") from None
    except subprocess.TimeoutExpired:
        raise ToolFailed(f"{' '.join(args)}: no end within {timeout_s:g} s") from None
    if done.returncode and not fine:
        raise ToolFailed(f"{' '.join(args)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
