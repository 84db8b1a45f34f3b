"""The error tree of the simulator. Each message says what to do."""

from __future__ import annotations

from collections.abc import Iterable


class SimError(Exception):
    """Base of what the simulator raises on purpose."""


class PacketError(SimError):
    """The object to send is no packet."""


class UnknownName(SimError):
    """No VIF, host, uplink, ... of this name is in the pool."""

    def __init__(self, noun: str, name: str, known: Iterable[str]) -> None:
        from vnet.util.suggest import listing, nearest  # noqa: PLC0415 - only on the way to an error

        names = list(known)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"there are: {listing(names) or 'none'}"
        super().__init__(f"no {noun} {name!r} in this pool; {hint}")
        self.noun = noun
        self.name = name


class AmbiguousVif(SimError):
    """A VM with several VIFs was named where one VIF is needed."""

    def __init__(self, vm: str, choices: Iterable[str]) -> None:
        super().__init__(f"VM {vm} has several VIFs that could be meant: name one of {', '.join(choices)}")


class NotPlugged(SimError):
    """The VIF has no port on any host, so it can neither send nor receive."""

    def __init__(self, label: str) -> None:
        super().__init__(f"VIF {label} is not plugged into any host: give its VM a host, or start it")


class GuestPaused(SimError):
    """The VIF's guest is paused, so it cannot send."""

    def __init__(self, label: str) -> None:
        super().__init__(f"VIF {label} is paused: resume its VM first")


class Looped(SimError):
    """A packet passed more switches than any pipeline of ours needs: there is a loop."""
