"""What goes wrong in the simulator. One tree; each message says what to do."""

from __future__ import annotations

from collections.abc import Iterable


class SimError(Exception):
    """The simulator could not do what was asked."""


class PacketError(SimError):
    """What should be sent is not a packet."""


class UnknownName(SimError):
    """No VIF, host, uplink, ... of this name is in the pool."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        from vnet.util.suggest import listing, nearest  # noqa: PLC0415 - only on the way to an error

        names = list(known)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"there are: {listing(names) or 'none'}"
        super().__init__(f"no {kind} {name!r} in this pool; {hint}")
        self.kind = kind
        self.name = name


class NotPlugged(SimError):
    """The VIF has no port on any host, so it can neither send nor receive."""


class Looped(SimError):
    """A packet was still going round after more passes between switches than any pipeline of ours needs."""
