"""What VIFs have sent and got, kept for good: a row of each host with what it has counted, and one of each VIF with what its former hosts had.

One rule: a host adds to its own row what its switch has counted since, and says in the same write up to where it counted. So nothing counts twice, whoever
ends in between.

`counted` has the counts of a VIF, `base` those less what the host's flows had counted as it wrote: an agent that starts anew takes up from there. The leader adds what a host has of a VIF that is not there
any more to the VIF's own row, and has `counted` begin anew; `base` is less by as much, so that a host which was cut off counts none of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ovsctl.ovsdb import Delete, Insert, Mutate, Operation, Update, Wait
from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.words import COUNT, LINE, TEXTS

# What a VIF's counts are of: the ways of its frames, each with packets and bytes.
WAYS = ("from_vm_pool", "from_vm_outside", "to_vm_pool", "to_vm_outside")
FIELDS = tuple(f"{way}_{unit}" for way in WAYS for unit in ("packets", "bytes"))
MAX_COUNT = 2**63 - 1
MAX_TEXT = 21 * len(FIELDS)

Counts = tuple[int, ...]  # as FIELDS says
ZERO: Counts = (0,) * len(FIELDS)


@dataclass(frozen=True, slots=True)
class HostAccount(Declared):
    """What a host has counted. serial: how often it has written; folds: how often the leader has taken something over. counted, base: texts of `encoded` by VIF. written: milliseconds since 1970."""

    NOUN: ClassVar[Noun] = Noun("host-account", "host-accounts", "host account", "HostAccount", "", key="host")
    TITLE: ClassVar[str] = "a host account"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    host: str = attr(LINE, "The host.")
    serial: int = attr(COUNT, "How often it has written.", default=0)
    folds: int = attr(COUNT, "How often the leader has taken over.", default=0)
    written: int = attr(COUNT, "Milliseconds since 1970.", default=0)
    counted: Mapping[str, str] = attr(TEXTS, "What it has counted, by VIF.", default={})
    base: Mapping[str, str] = attr(TEXTS, "The same, less its flows' counters.", default={})

    def of(self, vif: str) -> tuple[Counts, Counts]:
        """What it has counted of a VIF, and the base of that."""
        return decoded(self.counted.get(vif, "")), decoded(self.base.get(vif, ""), least=-MAX_COUNT)

    @property
    def unchanged(self) -> Wait:
        """Goes on only while nobody has written the row."""
        seen = {"serial": self.serial, "folds": self.folds}
        return Wait(HostAccount.NOUN.table, (("host", "==", self.host),), tuple(seen), (seen,))


@dataclass(frozen=True, slots=True)
class VifAccount(Declared):
    """What former hosts of a VIF have counted of it."""

    NOUN: ClassVar[Noun] = Noun("vif-account", "vif-accounts", "VIF account", "VifAccount", "", key="vif")
    TITLE: ClassVar[str] = "a VIF account"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    vif: str = attr(LINE, "The VIF.")
    counted: str = attr(LINE, "What they have counted.", default="")


def encoded(counts: Counts) -> str:
    """Counts as text."""
    return " ".join(map(str, counts))


def decoded(text: str, least: int = 0) -> Counts:
    """The counts of a text; none of what is no such text, as nobody writes who keeps the rules."""
    if len(text) > MAX_TEXT:
        return ZERO
    try:
        found = tuple(map(int, text.split(" ")))
    except ValueError:
        return ZERO
    if len(found) != len(FIELDS) or not all(least <= each <= MAX_COUNT for each in found):
        return ZERO
    return found


def plus(first: Counts, second: Counts) -> Counts:
    return tuple([a + b for a, b in zip(first, second, strict=True)])


def minus(first: Counts, second: Counts) -> Counts:
    return tuple([a - b for a, b in zip(first, second, strict=True)])


def totals(hosts: Iterable[HostAccount], vifs: Iterable[VifAccount]) -> dict[str, tuple[Counts, int]]:
    """What each VIF has sent and got, with when one of its hosts wrote last."""
    found = {it.vif: (decoded(it.counted), 0) for it in vifs}
    for host in hosts:
        for vif, text in host.counted.items():
            before, written = found.get(vif, (ZERO, 0))
            counts = decoded(text)
            found[vif] = plus(before, counts), max(written, host.written if any(counts) else 0)
    return found


def folded(
    it: HostAccount, left: Iterable[str], kept: Mapping[str, Counts], *, known: bool
) -> tuple[list[Operation], dict[str, Counts]]:
    """The operations that take over what a host has of VIFs that left it, and the new counts of those in `kept`, the VIFs that
    there are. known: whether the host is one of the pool; else its row goes."""
    mine = (("host", "==", it.host),)
    new: dict[str, Counts] = {}
    texts: dict[str, dict[str, str]] = {"counted": {}, "base": {}}
    for vif in left:
        counts, base = it.of(vif)
        if any(counts) or not known:
            texts["counted"][vif], texts["base"][vif] = encoded(ZERO), encoded(minus(base, counts))
            if vif in kept and any(counts):
                new[vif] = plus(kept[vif], counts)
    if not texts["counted"] and known:
        return [], {}
    operations: list[Operation] = [it.unchanged]
    if not known:
        return [*operations, Delete(HostAccount.NOUN.table, mine)], new
    changes = [*exchanged(texts["counted"], texts["base"]), ("folds", "+=", 1)]
    return [*operations, Mutate(HostAccount.NOUN.table, mine, tuple(changes))], new


def exchanged(
    counted: Mapping[str, str], base: Mapping[str, str], gone: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str, object]]:
    """Mutations of a host's row: new texts of VIFs, and VIFs that it has no more. Nothing else of the row is written."""
    for column, texts in (("counted", counted), ("base", base)):
        yield column, "delete", frozenset(texts) | gone
        yield column, "insert", dict(texts)


def carried(new: Mapping[str, Counts], there: frozenset[str]) -> Iterator[Operation]:
    """Writes the VIFs' own rows. there: those that have one."""
    table = VifAccount.NOUN.table
    for vif, counts in new.items():
        if vif in there:
            yield Update(table, (("vif", "==", vif),), {"counted": encoded(counts)})
        else:
            yield Insert(table, {"vif": vif, "counted": encoded(counts)})
