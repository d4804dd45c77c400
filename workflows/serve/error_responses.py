"""Error responses: every 4xx and 5xx has the same JSON shape and names the field at fault."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from workflows.ground.errors import TwoTowerError
from workflows.serve.wire import Refusal, fault, refusal_of


def install(app: FastAPI) -> None:
    """Register the handlers that turn exceptions of a FastAPI app into JSON error responses."""
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(TwoTowerError, _unavailable)
    app.add_exception_handler(Exception, _internal_error)


def response(refusal: Refusal) -> JSONResponse:
    """Return the refusal of a request as an HTTP error response in JSON."""
    return JSONResponse(refusal.body.model_dump(), refusal.status, refusal.headers)


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return response(error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return response(refusal_of(error.errors()))


async def _framework_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that Starlette itself refuses, and name the field at fault."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    faults = {
        400: fault("body", "unreadable JSON", "JSON in UTF-8, not too deeply nested"),
        404: fault("path", path, "a path of /openapi.json"),
        405: fault("method", method, "a method of this path, see /openapi.json"),
    }
    known = faults.get(error.status_code, fault("request", f"{method} {path}", str(error.detail)))
    return response(Refusal(error.status_code, known, headers=error.headers))


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """Answer 503 where the run has just been rewritten, or TensorFlow is not installed."""
    return response(Refusal(503, fault("server", type(error).__name__, str(error))))


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    """Answer 500 with the type of an unexpected exception; only the log has its traceback."""
    expected = "no internal error; the log of the server has the details"
    return response(Refusal(500, fault("server", type(error).__name__, expected)))
