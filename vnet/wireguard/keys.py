"""The host's private keys: one file each, for its owner alone, made here and read by nobody else."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from vnet.util.commands import ToolFailed, run
from vnet.util.files import replace_file
from vnet.wireguard.exchange import PublicKey


class KeyFile:
    """The key of one plane. Its file has the private part in base64, and the pool's epoch in which it was made."""

    def __init__(self, directory: Path, plane: int) -> None:
        self._path = directory / f"plane{plane}.key"

    def read(self) -> tuple[str, PublicKey] | None:
        """The private part, and the public one; None if there is no key, or its file is damaged: then another is made."""
        try:
            private, epoch = self._path.read_text().split()
            return private, PublicKey(run("wg", "pubkey", stdin=private).strip(), int(epoch))
        except (FileNotFoundError, ValueError, ToolFailed):
            return None

    def make(self, epoch: int) -> None:
        """Makes a new key in place of the old one. Raises ToolFailed, OSError."""
        replace_file(self._path, f"{run('wg', 'genkey').strip()} {epoch}\n".encode(), 0o600)


def bridge_mac(directory: Path) -> str:
    """The MAC of the bridge for encrypted tunnels: made once, and known to this host alone. Raises OSError."""
    path = directory / "bridge.mac"
    try:
        if _MAC.fullmatch(mac := path.read_text().strip()):
            return mac
    except (FileNotFoundError, ValueError):
        pass
    made = f"02:{secrets.token_bytes(5).hex(':')}"
    replace_file(path, f"{made}\n".encode(), 0o600)
    return made


_MAC = re.compile("02(:[0-9a-f]{2}){5}")
