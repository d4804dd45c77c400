"""How a refusal is said: one shape for every 4xx and 5xx, with the field that is at fault."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from workflows.ground.errors import TwoTowerError
from workflows.serve.wire import Refused, fault, refused

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Make an app say what is wrong in our words."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(TwoTowerError, _not_now)
    app.add_exception_handler(Exception, _broken)


def response(why: Refused) -> JSONResponse:
    """Return a refusal as HTTP."""
    return JSONResponse(why.body.model_dump(), why.status, why.headers)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return response(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return response(refused(error.errors()))


async def _http(request: Request, error: Exception) -> JSONResponse:
    """Name the field of what the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    faults = {
        400: fault("body", "no readable JSON", "JSON in UTF-8, not too deep"),
        404: fault("path", path, "a path of /openapi.json"),
        405: fault("method", method, "a method of this path, see /openapi.json"),
    }
    known = faults.get(error.status_code, fault("request", f"{method} {path}", str(error.detail)))
    return JSONResponse(
        Refused(error.status_code, known).body.model_dump(), error.status_code, error.headers
    )


async def _not_now(request: Request, error: Exception) -> JSONResponse:
    """Say that the run was written just now, or that a package for raw values is missing."""
    return response(Refused(503, fault("server", type(error).__name__, str(error))))


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """Say no more of an error of ours than that it is one; the log has the rest."""
    return response(Refused(500, fault("server", type(error).__name__, "no error; see its log")))
