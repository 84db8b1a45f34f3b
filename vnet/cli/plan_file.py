"""A plan in a file: the document that it is of, and the plan's id, by which the controller makes exactly it or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from vnet.cli.exits import CommandError, ExitCode

FORMAT = "vnet-plan/1"
_BEGINS = b'{"format":"vnet-plan/'


class PlanFile(msgspec.Struct, frozen=True):
    """plan: the plan's id. name: what the document is called in errors. text: the plan for people, who may read the file."""

    format: str
    plan: str
    text: str
    name: str
    document: str


def write_plan(path: str, made: PlanFile) -> None:
    """Writes a plan, for its owner alone: documents may tell much. Raises CommandError."""
    data = msgspec.json.encode(made) + b"\n"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None


def read_plan(file: str) -> PlanFile | None:
    """The plan in a file; None for one that has none, as a document, or standard input. Raises CommandError for a plan that cannot be read."""
    try:
        data = Path(file).read_bytes() if file != "-" else b""
    except OSError:
        return None  # whoever reads it as a document says so
    if not data.startswith(_BEGINS):
        return None
    try:
        found = msgspec.json.decode(data, type=PlanFile)
    except msgspec.MsgspecError as error:
        raise CommandError(f"{file}: no plan: {error}", ExitCode.INVALID_INPUT) from None
    if found.format != FORMAT:
        raise CommandError(f"{file}: a plan of another version of vnet: plan again", ExitCode.INVALID_INPUT)
    return found
