"""The files of our web pages: what they share is in this folder, and each service has its own."""

from pathlib import Path
from typing import NamedTuple

KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """A file as it is sent."""

    content: bytes
    kind: str
    """Its media type."""


def page_files(folder: Path) -> dict[str, PageFile]:
    """By name, the files that all services share and those of `folder`."""
    return {
        path.name: PageFile(path.read_bytes(), KINDS[path.suffix])
        for place in (Path(__file__).parent, folder)
        for path in place.iterdir()
        if path.suffix in KINDS
    }
