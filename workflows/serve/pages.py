"""The web pages: `/` looks up a user, `/docs` describes the HTTP interface.

The pages load nothing from other servers.
"""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response

#: Second protection against scripts in the data: even if a text were not escaped, the browser would
#: not run it, nor load anything for it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
#: Path → name and media type of its file in the folder web/.
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}

router = APIRouter(include_in_schema=False)


def _add_route(path: str, name: str, media_type: str) -> None:
    content = resources.files("workflows.serve").joinpath("web").joinpath(name).read_bytes()

    @router.get(path)
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)


for _path, (_name, _media_type) in FILES.items():
    _add_route(_path, _name, _media_type)
