"""MkDocs' calls, answered by `pages`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import pages
import reference


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and what the navigation does not name to it."""
    for path, text in (pages.generated() | reference.pages()).items():
        files.append(File.generated(config, path, content=text))
    pages.add_unnamed(config.nav or [], [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text as the site has it."""
    return pages.site_text(markdown)
