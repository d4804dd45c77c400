"""The FastAPI app: the routes of the HTTP interface, and the functions that they call."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Path, Query, Request, Response, Security
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from workflows.ground.errors import DataError, TwoTowerError
from workflows.serve import error_responses, pages
from workflows.serve.back_pressure import HAS_TURN, BackPressure, overloaded
from workflows.serve.batching import MicroBatcher
from workflows.serve.costs import check_lists, check_rows, cost_of_lists, cost_of_rows
from workflows.serve.current_export import CurrentExport
from workflows.serve.guard import Guard
from workflows.serve.limits import LIMITS, Limits
from workflows.serve.loaded_export import LoadedExport
from workflows.serve.long_answers import AnswerPieces, LongResponse, json_list_field
from workflows.serve.observe import Metrics, Observer
from workflows.serve.wire import (
    EmbedBody,
    EmbeddingsAnswer,
    Faults,
    Health,
    HistoryAnswer,
    Id,
    ListQuery,
    ListsAnswer,
    OneUserAnswer,
    RecommendBody,
    Refusal,
    SimilarItemsAnswer,
    UserList,
    UserQuery,
    fault,
)
from workflows.stages.recommender import ListOptions

Answer = TypeVar("Answer")
ListQueryString = Annotated[ListQuery, Query()]
UserPath = Annotated[Id, Path(description="Id of the user.")]
ItemPath = Annotated[Id, Path(description="Id of the item.")]


def build(
    current: CurrentExport,
    *,
    key: str = "",
    watch: float = 0.0,
    hosts: Collection[str] = (),
    limits: Limits = LIMITS,
) -> FastAPI:
    """Return the FastAPI app of the server.

    Args:
        current: the export from which requests are answered.
        key: the key that requests must name; "" for no key, in which case `/reload` is refused.
        watch: seconds between two checks for a newer export; 0 for no checks.
        hosts: allowed values of the header `Host`; empty if all are allowed.
        limits: the bounds on requests.
    """
    metrics = Metrics(current)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if watch:
                tasks.start_soon(_watch, current, watch)
            yield
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="two-tower",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.current, app.state.metrics, app.state.key = current, metrics, key
    app.state.limits, app.state.back_pressure = limits, BackPressure(limits)
    app.state.batcher = MicroBatcher(limits)
    # with as many threads as cores, a few slow requests would make all others wait; with more than
    # two for each core, threads wait for each other
    app.state.limiter = CapacityLimiter(2 * (os.cpu_count() or 1))
    # for /openapi.json only: the guard checks the key
    bearer = [Security(HTTPBearer(auto_error=False))] if key else []
    app.include_router(guarded, dependencies=bearer)
    app.include_router(public)
    app.include_router(pages.router)
    error_responses.install(app)
    app.add_middleware(
        Guard, key=key, hosts=hosts, back_pressure=app.state.back_pressure, limits=limits
    )
    app.add_middleware(Observer, metrics=metrics)  # added last, so it is the outermost
    return app


async def _watch(current: CurrentExport, seconds: float) -> None:
    """Check for a newer export at regular intervals, and load it."""
    while True:
        await anyio.sleep(seconds)
        if current.has_changed_on_disk:
            await to_thread.run_sync(current.try_reload)


def _error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Faults} for status in statuses}


guarded = APIRouter(responses=_error_answers(400, 401, 422, 503))
public = APIRouter(responses=_error_answers(400))


@guarded.post("/recommend", responses=_error_answers(408, 413, 415))
async def recommend(request: Request, body: RecommendBody) -> ListsAnswer:
    """Recommend items to a batch of users, each given by id, by raw values of features, or both."""
    served, options, state = _served(request), body.options(), request.app.state
    check_lists(served, len(body.users), options, state.limits)
    cost = cost_of_lists(served, len(body.users), options)
    if cost <= state.limits.small and not request.scope.get(HAS_TURN):
        async with state.back_pressure.admit_small():
            lists = await _lists(request, served, body.users, options)
        state.metrics.count_lists(Counter(one.answered_by for one in lists))
        return _json(ListsAnswer.model_construct(export=served.health.export, lists=lists))
    async with state.back_pressure.admit_large(request.scope, request.receive, cost):
        pieces = _pieces(request)
        parts = await _explain_faults(
            request, served, options, lambda: pieces.lists(served, body.users, options)
        )
    state.metrics.count_lists(pieces.answered_by)
    return _long_json(request, served, json_list_field("lists", parts))


@guarded.get("/recommend/{user:path}")
async def recommend_one(request: Request, user: UserPath, query: ListQueryString) -> OneUserAnswer:
    """Recommend items to one user."""
    served, options = _served(request), query.options()
    async with _admit(request, cost_of_lists(served, 1, options)):
        lists = await _lists(request, served, [UserQuery(id=user)], options)
    request.app.state.metrics.count_lists(Counter([lists[0].answered_by]))
    return _json(OneUserAnswer.model_construct(**dict(lists[0]), export=served.health.export))


@guarded.get("/similar-items/{item:path}", responses=_error_answers(404))
async def similar_items(
    request: Request, item: ItemPath, query: ListQueryString
) -> SimilarItemsAnswer:
    """List the items that are most similar to one item; their popularity does not count."""
    served, options = _served(request), query.options()
    if not served.knows_item(item):
        raise Refusal(404, fault("path.item", item, "the id of an item in the catalogue"))

    async def similar() -> Any:
        return await _run_in_thread(request, lambda: served.similar(item, options))

    async with _admit(request, cost_of_lists(served, 1, options)):
        items = await _explain_faults(request, served, options, similar)
    return _json(
        SimilarItemsAnswer.model_construct(export=served.health.export, item=item, items=items)
    )


@guarded.get("/history/{user:path}")
async def history(
    request: Request,
    user: UserPath,
    k: Annotated[int, Query(ge=1, le=LIMITS.k, description="Greatest number of items.")] = 50,
) -> HistoryAnswer:
    """List the last k items that a user interacted with before the cut, newest first."""
    served = _served(request)
    async with _admit(request, k):
        items = await _run_in_thread(request, lambda: served.history(user, k))
    return _json(
        HistoryAnswer.model_construct(
            export=served.health.export, user=user, known=items is not None, items=items or []
        )
    )


@guarded.post("/embed", responses=_error_answers(408, 413, 415))
async def embed(request: Request, body: EmbedBody) -> EmbeddingsAnswer:
    """Embed users and items from raw values of features. Values that are not given are missing.

    Histories are cut to their last events, as many as the model was trained on. The first request
    with raw values takes longer, because it loads TensorFlow.
    """
    served, state = _served(request), request.app.state
    check_rows(body.users, body.items, served.dim, state.limits)
    async with _admit(request, cost_of_rows(len(body.users) + len(body.items))):
        pieces = _pieces(request)
        users = await pieces.vectors(served, "users", body.users)
        items = await pieces.vectors(served, "items", body.items)
    fields = [*json_list_field("users", users), b",", *json_list_field("items", items)]
    return _long_json(request, served, fields)


@public.get("/health")
async def health(request: Request) -> Health:
    """Describe the export from which the server answers."""
    return _json(_served(request).health)


@public.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return metrics in the text format of Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@guarded.post("/reload", responses=_error_answers(403, 409))
async def reload(request: Request) -> Health:
    """Load the newest export and switch to it; if it cannot be used, keep the present one."""
    if not request.app.state.key:
        expected = (
            "a server that was started with TWO_TOWER_API_KEY; without a key, send SIGHUP to its "
            "process"
        )
        raise Refusal(403, fault("header.authorization", "no key is set", expected))
    current: CurrentExport = request.app.state.current
    if current.is_reloading:
        raise overloaded("a reload in progress", request.app.state.limits.retry_seconds)
    try:
        served = await to_thread.run_sync(current.reload)
    except TwoTowerError as error:
        raise Refusal(409, fault("export", type(error).__name__, str(error))) from None
    return _json(served.health)


def _served(request: Request) -> LoadedExport:
    """Return the export that answers a request; one request uses one export only."""
    served: LoadedExport = request.app.state.current.served
    return served


async def _lists(
    request: Request, served: LoadedExport, users: list[UserQuery], options: ListOptions
) -> list[UserList]:
    """Return users' recommendation lists; requests without raw values are answered in batches."""

    async def with_features() -> list[UserList]:
        return await _run_in_thread(
            request, lambda: served.lists(users, options, served.raw_values(users))
        )

    async def in_batch() -> list[UserList]:
        batcher: MicroBatcher = request.app.state.batcher
        return await batcher.lists(served, users, options, request.is_disconnected)

    has_features = any(user.features for user in users)
    return await _explain_faults(
        request, served, options, with_features if has_features else in_batch
    )


async def _explain_faults(
    request: Request,
    served: LoadedExport,
    options: ListOptions,
    answer: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Await the answer to a request; if a list option made it fail, name the option.

    Raises:
        Refusal: 422, a list option does not fit the export.
    """
    try:
        return await answer()
    except DataError as error:
        faults = await _run_in_thread(request, lambda: served.faults_of(options))
        raise Refusal(422, *(faults or [fault("request", "", str(error))])) from None


async def _run_in_thread(request: Request, work: Callable[[], Answer]) -> Answer:
    """Run a slow function in a thread, so that it does not block the event loop."""
    return await to_thread.run_sync(work, limiter=request.app.state.limiter)


def _json(answer: Any) -> Any:
    """Return an answer to a request as a JSON response, which FastAPI does not validate again."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _long_json(request: Request, served: LoadedExport, fields: list[bytes]) -> Any:
    """Return a long response, which is sent in parts; its fields are given as JSON text."""
    export = b'{"export":%s,' % json.dumps(served.health.export).encode()
    return LongResponse([export, *fields, b"}"], request.app.state.back_pressure)


def _pieces(request: Request) -> AnswerPieces:
    return AnswerPieces(request, partial(_run_in_thread, request), request.app.state.limits)


def _admit(request: Request, cost: int) -> AbstractAsyncContextManager[None]:
    """Return the context in which a request runs: small requests concurrently, large ones in turn.

    Args:
        request: the HTTP request.
        cost: cost of the request, in list entries.
    """
    back_pressure: BackPressure = request.app.state.back_pressure
    if cost <= request.app.state.limits.small and not request.scope.get(HAS_TURN):
        return back_pressure.admit_small()
    return back_pressure.admit_large(request.scope, request.receive, cost)
