"""The HTTP interface: what may be asked, and who answers."""

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
from fastapi import APIRouter, FastAPI, Query, Request, Response, Security
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from workflows.ground.errors import DataError, TwoTowerError
from workflows.serve import faults, web
from workflows.serve.back_pressure import HAS_TURN, Turns, busy
from workflows.serve.batching import Together
from workflows.serve.current import Current
from workflows.serve.guard import Guard
from workflows.serve.limits import LIMITS, Limits
from workflows.serve.long_answers import (
    Long,
    Pieces,
    check_lists,
    check_rows,
    cost_of_lists,
    cost_of_rows,
    listed,
)
from workflows.serve.observe import Figures, Observer
from workflows.serve.served import Served
from workflows.serve.wire import (
    Asked,
    Asker,
    EmbedBody,
    Embedded,
    Faults,
    Health,
    History,
    Id,
    Lists,
    OneList,
    RecommendBody,
    Refused,
    Similar,
    UserList,
    fault,
)
from workflows.stages.export import Wish

Answer = TypeVar("Answer")
Wished = Annotated[Asked, Query()]


def build(
    current: Current,
    *,
    key: str = "",
    watch: float = 0.0,
    hosts: Collection[str] = (),
    limits: Limits = LIMITS,
) -> FastAPI:
    """Return the app.

    Args:
        current: the export that answers.
        key: the key that callers must name; "" for none, and then nobody may reload over HTTP.
        watch: seconds between looks for a newer export; 0 for never.
        hosts: names that `Host` may say; none of them for any.
        limits: the limits of questions.
    """
    figures = Figures(current)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if watch:
                tasks.start_soon(_watch, current, watch)
            yield
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="two-tower",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    app.state.current, app.state.figures, app.state.key = current, figures, key
    app.state.limits, app.state.turns = limits, Turns(limits)
    # more threads than cores wait for each other; these many keep a slow question from being alone
    app.state.together = Together()
    app.state.limiter = CapacityLimiter(2 * (os.cpu_count() or 1))
    # said in /openapi.json; the guard has checked the key before
    bearer = [Security(HTTPBearer(auto_error=False))] if key else []
    app.include_router(guarded, dependencies=bearer)
    app.include_router(open_to_all)
    app.include_router(web.router)
    faults.install(app)
    app.add_middleware(Guard, key=key, hosts=hosts, turns=app.state.turns, limits=limits)
    app.add_middleware(Observer, figures=figures)  # the outermost: added last
    return app


async def _watch(current: Current, seconds: float) -> None:
    """Look for a newer export now and then."""
    while True:
        await anyio.sleep(seconds)
        if current.changed:
            await to_thread.run_sync(current.renew)


def _faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Faults} for status in statuses}


guarded = APIRouter(responses=_faults(400, 401, 422, 503))
open_to_all = APIRouter(responses=_faults(400))


@guarded.post("/recommend", responses=_faults(408, 413, 415))
async def recommend(request: Request, body: RecommendBody) -> Lists:
    """Rank items for a batch of users, each known by id, told by raw values, or both."""
    served, wish, state = _served(request), body.wish(), request.app.state
    check_lists(served, len(body.users), wish, state.limits)
    cost = cost_of_lists(served, len(body.users), wish)
    if cost <= state.limits.small and not request.scope.get(HAS_TURN):
        async with state.turns.small():
            lists = await _lists(request, served, body.users, wish)
        state.figures.count(Counter(one.answered_by for one in lists))
        return _json(Lists.model_construct(export=served.health.export, lists=lists))
    async with state.turns.big(request.scope, request.receive, cost):
        pieces = _pieces(request)
        parts = await _asked(request, served, wish, lambda: pieces.lists(served, body.users, wish))
    state.figures.count(pieces.answered_by)
    return _long(request, served, listed("lists", parts))


@guarded.get("/recommend/{user:path}")
async def recommend_one(request: Request, user: Id, asked: Wished) -> OneList:
    """Rank items for one user."""
    served, wish = _served(request), asked.wish()
    async with _turn(request, cost_of_lists(served, 1, wish)):
        lists = await _lists(request, served, [Asker(id=user)], wish)
    request.app.state.figures.count(Counter([lists[0].answered_by]))
    return _json(OneList.model_construct(**dict(lists[0]), export=served.health.export))


@guarded.get("/similar-items/{item:path}", responses=_faults(404))
async def similar_items(request: Request, item: Id, asked: Wished) -> Similar:
    """List the items most like one; how popular they are does not count."""
    served, wish = _served(request), asked.wish()
    if not served.knows_item(item):
        raise Refused(404, fault("path.item", item, "the id of an item"))
    async with _turn(request, cost_of_lists(served, 1, wish)):
        items = await _asked(
            request, served, wish, lambda: _work(request, lambda: served.similar(item, wish))
        )
    return _json(Similar.model_construct(export=served.health.export, item=item, items=items))


@guarded.get("/history/{user:path}")
async def history(
    request: Request, user: Id, k: Annotated[int, Query(ge=1, le=LIMITS.k)] = 50
) -> History:
    """List what a user did before the cut, newest first."""
    served = _served(request)
    async with _turn(request, k):
        items = await _work(request, lambda: served.history(user, k))
    return _json(
        History.model_construct(
            export=served.health.export, user=user, known=items is not None, items=items or []
        )
    )


@guarded.post("/embed", responses=_faults(408, 413, 415))
async def embed(request: Request, body: EmbedBody) -> Embedded:
    """Embed users and items from raw values, as the towers take them; what is not told is missing.

    Histories are cut to the last events, as many as training looks at. The first question of this
    kind waits until TensorFlow is loaded.
    """
    served, state = _served(request), request.app.state
    check_rows(body.users, body.items, served.dim, state.limits.numbers)
    async with _turn(request, cost_of_rows(len(body.users) + len(body.items))):
        pieces = _pieces(request)
        users = await pieces.vectors(served, "users", body.users)
        items = await pieces.vectors(served, "items", body.items)
    return _long(request, served, [*listed("users", users), b",", *listed("items", items)])


@open_to_all.get("/health")
async def health(request: Request) -> Health:
    """Tell what is loaded; before that, nothing answers here."""
    return _json(_served(request).health)


@open_to_all.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(request.app.state.figures.text(), media_type=CONTENT_TYPE_LATEST)


@guarded.post("/reload", responses=_faults(403, 409))
async def reload(request: Request) -> Health:
    """Load the newest export and switch to it; where it cannot be used, the old one stays."""
    if not request.app.state.key:
        expected = "a server with TWO_TOWER_API_KEY; without one, send it SIGHUP"
        raise Refused(403, fault("header.authorization", "none", expected))
    current: Current = request.app.state.current
    if current.is_reloading:
        raise busy("a reload in progress", request.app.state.limits.retry)
    try:
        served = await to_thread.run_sync(current.reload)
    except TwoTowerError as error:
        raise Refused(409, fault("export", type(error).__name__, str(error))) from None
    return _json(served.health)


def _served(request: Request) -> Served:
    """Return the export that answers this request, to its end."""
    served: Served = request.app.state.current.now
    return served


async def _lists(
    request: Request, served: Served, users: list[Asker], wish: Wish
) -> list[UserList]:
    """Answer users: those known by id alone with others who wait, raw values by themselves."""
    if any(user.features for user in users):
        return await _asked(
            request,
            served,
            wish,
            lambda: _work(request, lambda: served.lists(users, wish, served.told_of(users))),
        )
    together: Together = request.app.state.together
    gone = request.is_disconnected
    return await _asked(request, served, wish, lambda: together.lists(served, users, wish, gone))


async def _asked(
    request: Request, served: Served, wish: Wish, answer: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Answer a wish, or say which of its parts fits nothing."""
    try:
        return await answer()
    except DataError as error:
        blamed = await _work(request, lambda: served.blame(wish))
        raise Refused(422, *(blamed or [fault("request", "", str(error))])) from None


async def _work(request: Request, work: Callable[[], Answer]) -> Answer:
    """Do what takes processor time in a thread, so that others are heard meanwhile."""
    return await to_thread.run_sync(work, limiter=request.app.state.limiter)


def _json(answer: Any) -> Any:
    """Return an answer as JSON at once: what we made ourselves need not be validated again."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _long(request: Request, served: Served, fields: list[bytes]) -> Any:
    """Return an answer whose pieces are JSON already."""
    export = b'{"export":%s,' % json.dumps(served.health.export).encode()
    return Long([export, *fields, b"}"], request.app.state.turns)


def _pieces(request: Request) -> Pieces:
    return Pieces(request, partial(_work, request), request.app.state.limits)


def _turn(request: Request, cost: int) -> AbstractAsyncContextManager[None]:
    """Take a turn among the small questions, or among the big ones.

    Args:
        request: to be answered.
        cost: in ranks.
    """
    turns: Turns = request.app.state.turns
    if cost <= request.app.state.limits.small and not request.scope.get(HAS_TURN):
        return turns.small()
    return turns.big(request.scope, request.receive, cost)
