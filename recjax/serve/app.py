"""The HTTP application: routes, and refusals in one form."""

from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from recjax import __version__
from recjax.evaluate.ranking import NonFiniteScoresError
from recjax.serve import messages
from recjax.serve.answers import Json, failed, faults, with_nearest
from recjax.serve.measures import Measures
from recjax.serve.service import Answer, RefusedError, Service
from recjax.serve.shell import Shell
from recjax.serve.users import UnknownUserError
from recjax.serve.worker import BusyError, StoppedError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a server on loopback answers; others may be those of a page elsewhere that points its name here."""

PAGE = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}

Name = Annotated[str, Path(min_length=1, max_length=512, description="any name")]

_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": messages.Failure, "description": text}
    for status, text in {
        400: "not JSON",
        413: "a body with more bytes than are taken",
        415: "a body that is not said to be JSON",
        422: "ids that the catalog does not have, numbers beyond the limits, no history",
        503: "too much waits, or the server is about to end",
    }.items()
}
_OF_USERS = {**_FAILURES, 404: {"model": messages.Failure, "description": "no events of this user are remembered"}}


def build(service: Service, measures: Measures, hosts: tuple[str, ...] | None = None) -> FastAPI:
    """The application.

    Args:
        service: what answers.
        measures: what counts.
        hosts: names under which it may be called, or None for any.
    """
    shell = [Middleware(Shell, service.limits.body, measures, hosts)]
    # The pages of documentation that the framework brings load scripts from elsewhere.
    app = FastAPI(title="recjax", version=__version__, docs_url=None, redoc_url=None, middleware=shell)
    _add_refusals(app)
    _add_lists(app, service)
    _add_users(app, service)
    _add_state(app, service, measures)
    _add_page(app)
    return app


def _add_lists(app: FastAPI, service: Service) -> None:
    _, asks, _ = messages.bounded(service.limits)

    @app.post("/v1/recommend", responses=_FAILURES, response_model=messages.Recommendations)
    async def recommend(ask: asks) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        """The best items after a history."""
        return _listed(await service.recommend(ask.history, ask.timestamps, **_wish(ask)))

    @app.get("/v1/items", response_model=messages.Found)
    def items(
        search: Annotated[str, Query(max_length=200)] = "",
        item_id: Annotated[list[str], Query(max_length=100)] = [],  # noqa: B006 (of the framework)
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> Response:
        """Items whose titles have all words of `search`, popular ones first; or those of some ids."""
        return Json({"items": service.items(item_id) if item_id else service.search(search, limit)})


def _add_users(app: FastAPI, service: Service) -> None:
    wishes, _, batches = messages.bounded(service.limits)

    @app.post("/v1/users/{user:path}/events", responses=_FAILURES, response_model=messages.Taken)
    async def push(user: Name, sent: batches) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        """Takes events of a user, which the next lists of that user know of."""
        events = [(event.item_id, event.timestamp) for event in sent.events]
        return Json(await service.push(user, events, sent.unknown))

    @app.post("/v1/users/{user:path}/recommend", responses=_OF_USERS, response_model=messages.Recommendations)
    async def recommend_user(user: Name, wish: wishes) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        """The best items for a user whose events were sent before."""
        return _listed(await service.recommend_user(user, **_wish(wish)))

    @app.delete("/v1/users/{user:path}", responses=_OF_USERS, status_code=204)
    async def forget(user: Name) -> Response:
        """Forgets the events of a user."""
        if not await service.forget(user):
            raise UnknownUserError(user)
        return Response(status_code=204)


def _add_state(app: FastAPI, service: Service, measures: Measures) -> None:
    served, limits = service.served, service.limits
    measures.about.labels(served.name, str(served.step), served.dataset, served.fingerprint[:12]).set(1)
    measures.watch("recjax_users", "Users whose events are remembered", lambda: len(service.users))
    measures.watch("recjax_users_evicted", "Users who made room for others", lambda: service.users.evicted)
    measures.watch("recjax_waiting", "Requests that wait for the device", lambda: service.worker.waiting)
    measures.watch("recjax_programs", "Compiled rankings; it never changes", lambda: service.programs.count)
    about = {
        "run": served.name,
        "step": served.step,
        "dataset": served.dataset,
        "fingerprint": served.fingerprint,
        "items": len(served.catalog),
        "online": service.online,
        "counts_events": service.learning is not None,
        "limits": {"k": limits.k, "events": limits.events, "ids": limits.ids, "body": limits.body},
    }

    @app.get("/v1/model", response_model=messages.About)
    async def model() -> Response:
        """The run, its catalog, and the limits of requests."""
        return Json(about)

    @app.get("/health", response_model=messages.Health, responses={503: {"model": messages.Health}})
    async def health() -> Response:
        """True if requests are answered: 200, or 503 while the server ends."""
        stopping = service.worker.stopped
        return Json({"status": "stopping" if stopping else "ready"}, 503 if stopping else 200)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures in the text format of Prometheus."""
        return Response(measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("recjax.serve") / "page"
    for name, kind in PAGE.items():
        content = (folder / (name or "index.html")).read_bytes()

        def file(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8")

        app.router.add_route(f"/{name}", _answering(file), methods=["GET"])


def _answering(make: Any) -> Any:
    async def answer(request: Request) -> Response:
        del request
        return make()

    return answer


def _wish(ask: messages.Wish) -> dict[str, Any]:
    return {"k": ask.k, "candidates": ask.candidates, "exclude": ask.exclude, "unknown": ask.unknown}


def _listed(answer: Answer) -> Response:
    return Json({"items": answer.items, "unknown": answer.unknown, "fallback": answer.fallback})


def _add_refusals(app: FastAPI) -> None:
    """Everything that is refused, in one form: an `error` with a code and a message."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return failed(422, error.code, str(error), error.unknown)

    @app.exception_handler(UnknownUserError)
    async def unknown(request: Request, error: UnknownUserError) -> Response:
        return failed(404, "unknown_user", f"no events of user {str(error)[:200]!r} are remembered")

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return failed(503, "busy", "too many requests wait; try again", headers={"retry-after": "1"})

    @app.exception_handler(StoppedError)
    async def stopped(request: Request, error: StoppedError) -> Response:
        return failed(503, "stopping", "the server is about to end", headers={"connection": "close"})

    @app.exception_handler(NonFiniteScoresError)
    async def broken(request: Request, error: NonFiniteScoresError) -> Response:
        return failed(500, "not_finite", str(error))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        code = {400: "not_json", 404: "no_such_path", 405: "no_such_method", 413: "too_long"}.get(status, "bad_request")
        text = {
            400: "the request is not JSON, or lists in it are nested too deeply",
            404: f"there is no {request.url.path[:200]}; /openapi.json has all paths",
            405: f"{request.method[:10]} is not for this path; /openapi.json has all methods",
        }
        return failed(status, code, text.get(status, str(error.detail)), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        kind = request.headers.get("content-type", "")
        if request.method == "POST" and "json" not in kind.lower():
            return failed(415, "not_json", f"content-type is {kind[:100]!r}, expected application/json")
        if found and found[0]["type"] == "json_invalid":
            reason = found[0].get("ctx", {}).get("error", "")
            return failed(400, "not_json", f"the request is not JSON: {reason} at character {found[0]['loc'][-1]}")
        fields = {"history", "timestamps", "k", "candidates", "exclude", "unknown"}
        return failed(422, "invalid", with_nearest(faults(found), found, sorted(fields)))
