"""Files that are replaced in one step, so that whoever reads one gets the old content or the new."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Have the file hold this content, on disk. Makes its directory, for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not by tempfile, which loads compression libraries that an agent has no other use for.
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
