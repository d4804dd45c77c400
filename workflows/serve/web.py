"""The pages: to look up a user, and what /openapi.json says. They load nothing from outside."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response

#: Were a text of the data not escaped, a browser would still run and load nothing of it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
#: Path → file and media type.
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}

router = APIRouter(include_in_schema=False)


def _add(path: str, name: str, kind: str) -> None:
    content = resources.files("workflows.serve").joinpath("web").joinpath(name).read_bytes()

    @router.get(path)
    async def file() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)


for _path, (_name, _kind) in FILES.items():
    _add(_path, _name, _kind)
