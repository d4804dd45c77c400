"""The web pages: `/` looks up a user, `/docs` is Swagger UI for the HTTP interface.

The pages load nothing from other servers: fastapi-offline brings the files of Swagger UI.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html


def _headers(scripts: str = "", styles: str = "") -> dict[str, str]:
    """Return the HTTP headers of a web page, with its content security policy.

    The headers are a second protection against scripts in the data: even if a text were not
    escaped, the browser would not run it, nor load anything for it.

    Args:
        scripts: sources from which the page may load scripts, besides this server.
        styles: sources from which the page may load style sheets, besides this server.
    """
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src 'self'{styles}; "
        f"script-src 'self'{scripts}; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


_OURS = Path(str(resources.files("workflows.serve"))) / "web"
_SWAGGER = Path(str(resources.files("fastapi_offline"))) / "static"
#: URL path of a page's file → the file's name and its media type.
_FILES = {
    "/": (_OURS / "page.html", "text/html"),
    "/page.css": (_OURS / "page.css", "text/css"),
    "/page.js": (_OURS / "page.js", "text/javascript"),
    "/swagger-ui.css": (_SWAGGER / "swagger-ui.css", "text/css"),
    "/swagger-ui-bundle.js": (_SWAGGER / "swagger-ui-bundle.js", "text/javascript"),
}
#: URL paths of the web pages and of the files that they load.
PATHS = {*_FILES, "/docs"}

router = APIRouter(include_in_schema=False)


def _add_route(path: str, file: Path, media_type: str) -> None:
    @router.get(path)
    def content() -> Response:
        return Response(file.read_bytes(), media_type=media_type, headers=_headers())


for _path, (_file, _media_type) in _FILES.items():
    _add_route(_path, _file, _media_type)


@router.get("/docs")
async def docs() -> Response:
    """Return FastAPI's Swagger page, which loads its files and openapi.json from this server."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="two-tower: API",
        swagger_js_url="swagger-ui-bundle.js",
        swagger_css_url="swagger-ui.css",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"validatorUrl": None},
    )
    (script,) = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    page.headers.update(_headers(scripts=f" 'sha256-{digest}'", styles=" 'unsafe-inline'"))
    return page
