"""The nearest name to one that is not there: what a typo probably meant. Bounded, however many names there are."""

from __future__ import annotations

from collections.abc import Collection

LISTED_MAX = 8


def edits(a: str, b: str, limit: int) -> int:
    """The number of letters to add, drop, change or swap with their neighbour to get from a to b; limit + 1 for more than limit."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    start = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def nearest(word: str, names: Collection[str]) -> str | None:
    """The name that needs the fewest edits, if it is near enough to be meant; of equals the first by alphabet."""
    folded = word.casefold().replace("_", "-")
    limit = 1 if len(word) <= 4 else 2 if len(word) <= 8 else 3
    letters = set(folded)
    found: list[tuple[int, str]] = []
    for name in names:
        other = name.casefold().replace("_", "-")
        if abs(len(other) - len(folded)) > limit or len(letters.symmetric_difference(other)) > 2 * limit:
            continue
        count = edits(folded, other, limit)
        if count <= limit:
            found.append((count, name))
            limit = count
    return min(found)[1] if found else _begun(folded, names)


def _begun(word: str, names: Collection[str]) -> str | None:
    """The one name that the word is the beginning of."""
    found = [name for name in names if len(word) > 2 and name.casefold().startswith(word)]
    return found[0] if len(found) == 1 else None


def listing(names: Collection[str]) -> str:
    """The names in a sentence, cut where there are many."""
    shown = sorted(names)[:LISTED_MAX]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def plural(text: str) -> str:
    """The plural of a noun in sentences."""
    return text + ("es" if text.endswith("s") else "s")
