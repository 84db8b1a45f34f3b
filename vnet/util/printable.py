"""Text from outside, made safe for a terminal and a log. One rule: a character that could move the cursor is replaced."""

from __future__ import annotations


def on_one_line(text: str) -> str:
    """The text with every control, format and line-breaking character replaced."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable(text: str) -> str:
    """The same for a text of several lines, which keeps its newlines and tabs."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def _shown(char: str) -> str:
    return char if char.isprintable() else "\N{REPLACEMENT CHARACTER}"
