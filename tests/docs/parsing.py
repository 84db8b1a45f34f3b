"""What a page has that may be run: blocks, their commands, and commands in its sentences. One rule: a page says it once, and all tests read it the same way."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from vnet.cli.main import cli
from vnet.cli.options import RootOptions

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
NOTE = re.compile(r"^<!-- (.*?) -->$", re.M | re.S)
PROGRAM = re.compile(
    r"(?:vnet|systemctl|systemd-analyze|journalctl|ovs-\w+|ovsdb-\w+|ip|wg|ss|ping|modprobe|apt-get|make|virsh|xe|ssh|ln|mkdir|export|pytest|python) [a-z-]"
)
INLINE = re.compile(r"`([^`\n]+)`")
COMMENT = re.compile(r"\s+# .*$")
# A word that stands for another: NAME, XEN:PORT, ..., a|b.
PLACEHOLDER = re.compile(r"\b[A-Z]{1,}\b(?!=)|\.\.\.|…|\w\|\w")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, "" where it states none, its text, and the line of the page where that begins."""

    language: str
    text: str
    line: int
    follows: bool = False  # directly after another block, whose output it then is
    notes: tuple[str, ...] = ()  # the comments before it, which no reader sees

    @property
    def commands(self) -> list[str]:
        """The commands of a shell's block, without comments. Of one with other lines, those after a prompt."""
        lines = [COMMENT.sub("", line) for line in self.text.replace("\\\n", " ").splitlines()]
        if self.language == "sh" or (not self.language and all(PROGRAM.match(line) for line in lines)):
            return [line for line in lines if line and not line.startswith("#")]
        if self.language == "text" and all(PROGRAM.match(line) for line in lines):
            return lines
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def page_blocks(text: str) -> Iterator[Block]:
    end = 0
    for found in FENCE.finditer(text):
        between = text[end : found.start()]
        notes = tuple(note[1] for note in NOTE.finditer(between))
        yield Block(
            found["language"], found["text"], text.count("\n", 0, found.start()) + 2, not between.strip(), notes
        )
        end = found.end()


def sentence_commands(text: str) -> list[str]:
    """The commands in a page's sentences that may be typed as they stand: whole ones, without a word in the place of another."""
    sentences = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.M | re.S)
    named = dict.fromkeys(found for found in INLINE.findall(sentences) if PROGRAM.match(found))
    return [command for command in named if not PLACEHOLDER.search(command) and is_whole(command)]


def is_whole(command: str) -> bool:
    """Whether nothing is left out. A word or two of another program than vnet, such as `virsh migrate`, name it."""
    words = shlex.split(command)
    if words[0] != "vnet":
        return len(words) > 2 or words[0] == "make"
    found: click.Command = cli
    context = click.Context(cli, obj=RootOptions(""))
    words = words[1:]
    while isinstance(found, click.Group):
        if not words or words[0].startswith("-"):
            return False
        command_found = found.get_command(context, words[0])
        assert command_found is not None, command
        found, words = command_found, words[1:]
    try:
        found.make_context(found.name, words, parent=context)
    except (click.MissingParameter, click.BadOptionUsage):
        return False
    except click.UsageError:
        return True  # a file that is not there yet
    return True
