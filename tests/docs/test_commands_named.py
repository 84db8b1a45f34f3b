"""Each `vnet` command that a page names, in a block or in a sentence, is one that there is, with these options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.debian.guide import BLOCK as MACHINE_BLOCK
from vnet.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
INLINE = re.compile(r"`(vnet [a-z][^`\n]*)`")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
END = re.compile(r"[|;&<>#]|\$\(")  # of a command in a shell's line


def commands(text: str) -> Iterator[str]:
    yield from INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for block in (block for language, block in BLOCK.findall(text) if language in ("", "sh")):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"[|;&]+", line):
                if part.strip().startswith("vnet "):
                    yield part.strip()


def fault(text: str) -> str:
    """What is wrong with a command, "" for nothing. What stands for something (NAME, ...) and what is left out is no fault."""
    try:
        words = shlex.split(END.split(text)[0].replace("...", " ").replace("…", " "))[1:]
    except ValueError as error:
        return str(error)
    found: click.Command = cli
    ctx = click.Context(cli)
    while isinstance(found, click.Group):
        while words and words[0].startswith("-"):
            option = next((p for p in found.params if words[0].partition("=")[0] in p.opts), None)
            if option is None:
                return f"no option {words[0]}"
            words = words[1 if getattr(option, "is_flag", False) or "=" in words[0] else 2 :]
        if not words or "," in words[0] or words[0].isupper():
            return ""
        command = found.get_command(ctx, words[0])
        if command is None:
            return f"no command {words[0]}"
        found, words = command, words[1:]
        ctx = click.Context(found, parent=ctx)
    words = words[: words.index("--")] if "--" in words else words  # what follows is another program's
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "-h",
        "--help",
    }
    unknown = [
        word
        for word in words
        if word.startswith("-")
        and word != "-"
        and word.partition("=")[0] not in known
        and not word.lstrip("-").isdigit()
    ]
    return f"no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    faults = {text: found for text in commands(page.read_text()) if (found := fault(text))}
    assert not faults


# Run where a machine is not needed, or cannot do: their tests.
ELSEWHERE = {
    "make deb": "tests/debian/machines.py",
    "vnet pool status": "tests/docs/test_cluster.py",
    "vnet pool create-cluster": "tests/docs/test_cluster.py",
    "vnet pool restore": "tests/docs/test_operate.py",
    "vnet vif plug": "tests/vnet/packets/test_twins.py",
    "modprobe wireguard": "the machines' kernel is this one's, and has no modules of its own",
}
PROGRAM = r"(?:vnet|systemctl|systemd-analyze|journalctl|ovs-\w+|ovsdb-\w+|ip|wg|ss|ping|modprobe|apt-get|make) [a-z-]"


GUIDE = ("install.md", "operate.md", "troubleshooting.md")  # run one after the other, tests/debian/test_pages.py


@pytest.mark.parametrize("page", GUIDE)
def test_what_a_sentence_names_runs_on_a_machine(page: str) -> None:
    """Each command outside of blocks is in a block or an event of these pages, but for what stands for something: numbers, names, values."""
    pages = [(ROOT / "docs" / each).read_text() for each in GUIDE]
    blocks = [found for text in pages for found in MACHINE_BLOCK.finditer(text) if not found["yaml"]]
    run = "\n".join(found["event"] or found["text"] for found in blocks)
    text = pages[GUIDE.index(page)]
    sentences = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.M | re.S)
    named = {found for found in re.findall(r"`([^`\n]+)`", sentences) if re.match(PROGRAM, found)}
    assert len(named) > 5
    assert {it for it in named if not _runs(it, run) and not any(it.startswith(known) for known in ELSEWHERE)} == set()
    unnamed = re.findall(r"^```(sh|text)\n(?!# on )(.*?)^```", text, re.M | re.S)
    left = [block for kind, block in unnamed if re.match(PROGRAM, block) and (kind, page) != ("sh", "operate.md")]
    assert left == [], "no machine is named; those of operate.md are run by tests/docs/test_operate.py"


def _runs(command: str, script: str) -> bool:
    """Whether a script runs a command: its words, but for digits, in this order on one line."""
    words = [re.escape(re.sub(r"\d+", "0", word)) for word in command.split() if word != "..."]
    return re.search(r"\b" + r"\b.*?".join(words), re.sub(r"\d+", "0", script)) is not None


def test_commands_are_found_in_blocks_and_sentences() -> None:
    text = "`vnet a`\n```python\nx\n```\nvnet no command\n```\nvnet b; vnet c | x\n```\n```text\nvnet no\n```\n```sh\nvnet d \\\n -x\n```\n"
    assert list(commands(text)) == ["vnet a", "vnet b", "vnet c", "vnet d   -x"]


def test_what_is_not_there_is_found() -> None:
    for text in ("vnet vif getx web1/0", "vnet vif get --all web1/0", "vnet --nothing status", "vnet nothing"):
        assert fault(text), text
    assert not fault("vnet --controller unix:/x vif get web1/0 -o json")


# Of `pytest` with vnet's plugin; of each command that has the option X.
OPTIONS_OF_OTHERS = {"--vnet-on", "--no-X"}
BENCHES = ("benchmarks.md", "testing.md")  # their options are those of benchmarks and pytest


def test_an_option_that_stands_alone_is_one_of_some_command() -> None:
    with click.Context(cli, info_name="vnet") as context:
        options = [p for command in (cli, *commands_below(cli, context)) for p in command.params]
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)} | OPTIONS_OF_OTHERS
    unknown = {
        f"{page.name}: {word}"
        for page in PAGES
        if page.name not in BENCHES
        for code in re.findall(
            r"`(--[^`\n]*)`", re.sub(r"^```.*?^```|<!--.*?-->", "", page.read_text(), flags=re.M | re.S)
        )
        for word in re.findall(r"(?<!\S)--[a-z][\w-]*", code)
        if word not in known
    }
    assert unknown == set()


def commands_below(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands_below(found, click.Context(found, parent=context, info_name=name))
        else:
            yield found


def test_an_option_that_takes_a_tls_remote_comes_with_one_for_its_certificate() -> None:
    with click.Context(cli, info_name="vnet") as context:
        for command in commands_below(cli, context):
            options = [option for option in command.params if isinstance(option, click.Option)]
            names = {name for option in options for name in option.opts}
            if any("ssl:" in f"{option.metavar} {option.help}" for option in options):
                assert "--pki-dir" in names, command.name
