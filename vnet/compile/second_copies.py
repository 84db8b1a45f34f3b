"""Frames for a VIF that moves, of which both its hosts get one, so that mirrors that ask where a frame is delivered show it once.

One rule: the host that sends two says by a mark on one of them that the other is shown, so no two hosts need to agree on an instant. The mark is the group bit of
the source MAC: no frame has it (IEEE 802.3-2018 §3.2.3; GUARD drops those that do), each tunnel carries it, and it takes no byte.
"""

from __future__ import annotations

from hashlib import blake2b

from ovsctl.openflow import Learn, LearnLoad, LearnMatch
from ovsctl.openflow import actions as act
from vnet.compile.flows import Actions, goto
from vnet.compile.pipeline import REG_MIRROR, REG_OPEN, REG_PORT, Category, Table, cookie
from vnet.objects import Binding

GROUP_BIT = ("01:00:00:00:00:00", "01:00:00:00:00:00")
MARK, UNMARK = act.SetField("eth_src", GROUP_BIT), act.SetField("eth_src", ("00:00:00:00:00:00", GROUP_BIT[1]))
BIT_OF_FRAME = "eth_src[40]"
# The answer of MIRROR_MOVED: of which host's frame the mark is, bit 0 that where the VIF runs, bit 1 that where it goes.
MARKS = f"{REG_OPEN}[0..1]"
MARK_OLD, MARK_NEW = 1, 2
LEARNED_PRIORITY, HEARD_FOR_S = 200, 10  # of the flow in MIRROR_MOVED, and seconds until it goes by itself
# A limit has Open vSwitch cache no frame that would learn and has not yet (xlate_learn_action). Without one an announcement that meets the cached
# flow of an earlier one is learned from only when the flows' counts are next read, up to half a second later.
MOST_HEARD = 10_000


def marked(actions: Actions) -> Actions:
    """With the mark on the frame, which is afterwards as it was; nothing where there is no way out."""
    return (MARK, *actions, UNMARK) if actions else ()


def ask_moved(to: Binding) -> Actions:
    """Asks whether a VIF was heard from the host that it moves to."""
    return (act.SetField(REG_PORT, _number(to)), goto(Table.MIRROR_MOVED))


def to_both(to: Binding, old: Actions, new: Actions) -> Actions:
    """To both hosts of a VIF that is moving: the new one's frame has the mark until the VIF was heard from there, then the old one's."""
    if not old or not new:
        return old + new
    first, second = (act.Move(f"{REG_OPEN}[{bit}]", BIT_OF_FRAME) for bit in (0, 1))
    return (act.SetField(REG_OPEN, MARK_NEW), *ask_moved(to), first, *old, second, *new, UNMARK)


def heard(to: Binding) -> Learn:
    """Has the switch note that a VIF was heard from the host that it moves to, before anybody tells this one."""
    return Learn(
        table=Table.MIRROR_MOVED,
        priority=LEARNED_PRIORITY,
        cookie=cookie(Category.LEARNED, ""),
        hard_timeout=HEARD_FOR_S,
        limit=MOST_HEARD,
        specs=(
            LearnMatch(f"{REG_PORT}[0..31]", _number(to)),
            LearnLoad(MARK_OLD, MARKS),
            LearnLoad(0, f"{REG_MIRROR}[0..31]"),
        ),
    )


def _number(to: Binding) -> int:
    """Stands for one move: the next one of the same VIF, back even, has a higher epoch."""
    name = f"{to.network}/{to.vif}/{to.epoch}"
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big")
