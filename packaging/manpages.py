"""Man pages and shell completion of a program, from its click commands. One rule: nothing is written that the commands do not say themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

SHELLS = {
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}


def manpage(program: str, command: click.Command, version: str, date: str) -> str:
    """The page of section 1 of a program (man-pages(7)), with all commands below it. date: as 2026-01-31."""
    with click.Context(command, info_name=program) as context:
        lines = [
            f'.TH {program.upper()} 1 "{date}" "vnet {version}"',
            ".SH NAME",
            f"{program} \\- {_text(command.get_short_help_str(200))}",
            *_described(context, "SH"),
            ".SH SEE ALSO",
            "ovs\\-vswitchd(8), ovsdb\\-server(1), and the documents in /usr/share/doc/vnet",
        ]
    return "\n".join(lines) + "\n"


def completion(shell: str, command: click.Command) -> str:
    """What the shell sources to complete `vnet`."""
    found = get_completion_class(shell)
    if found is None:
        raise ValueError(f"click completes no {shell}")
    return found(command, {}, "vnet", "_VNET_COMPLETE").source() + "\n"


def _described(context: click.Context, level: str) -> Iterator[str]:
    command = context.command
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".{level} SYNOPSIS" if level == "SH" else ".PP"
    yield f".B {_text(context.command_path)}"
    yield _text(usage)
    if level == "SH":
        yield ".SH DESCRIPTION"
    else:
        yield ".PP"
    for paragraph in (command.help or "").split("\n\n"):
        yield from (_text(" ".join(paragraph.split())), ".PP")
    records = [record for option in command.params if (record := option.get_help_record(context))]
    if records and level == "SH":
        yield ".SH OPTIONS"
    for option, text in records:
        yield from (".TP", f".B {_text(option)}", _text(text) or "\\&")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                with click.Context(inner, info_name=name, parent=context) as below:
                    yield f'.{"SH" if level == "SH" else "SS"} "{_text(below.command_path.upper() if level == "SH" else below.command_path)}"'
                    yield from _described(below, "SS")


def _text(text: str) -> str:
    """Text as roff has it: no line begins with a request, and hyphens of options stay hyphens."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
