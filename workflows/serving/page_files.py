"""Reads the files of the page that tries models on images."""

from importlib.resources import files

from starlette.responses import Response

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def read_page() -> dict[str, Response]:
    """Returns the response to each path of the page: `/`, and `/page.js` and the like."""
    pages = {}
    for file in files("workflows.serving").joinpath("page").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            pages[path] = Response(file.read_bytes(), media_type=_TYPES[suffix])
    return pages
