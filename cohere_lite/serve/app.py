"""The routes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from .edge import Guard, error_response
from .live import live
from .realtime import realtime
from .rendering import Rendering
from .service import Service
from .transcriptions import Transcriptions, model_facts, not_there

_ROUTES = (
    "POST /v1/audio/transcriptions",
    "/v1/models",
    "/v1/realtime and /live (WebSocket)",
    "/health",
    "/metrics",
    "/",
)
# The page's script and style stand in it; it opens connections to this server alone.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; img-src data:; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_app(service: Service, key: str | None, origins: Sequence[str]) -> Starlette:
    """key: that clients must have, None for none;  origins: whose pages may use the service, "*" for all."""
    middleware = [Middleware(Guard, key, origins)]
    if origins:
        allowed: dict[str, Any] = {"allow_origins": origins, "allow_methods": ["*"], "allow_headers": ["*"]}
        middleware.insert(0, Middleware(CORSMiddleware, **allowed, allow_private_network=True))
    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/health", _health),
            Route("/metrics", _metrics),
            Route("/v1/models", _models),
            Route("/v1/models/{id:path}", _model),
            Route("/v1/audio/transcriptions", Transcriptions(service), methods=["POST"]),
            Route("/render", Rendering(service), methods=["POST"]),
            WebSocketRoute("/v1/realtime", realtime),
            WebSocketRoute("/live", live),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _not_found},
    )
    app.state.service = service
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        message = f"{request.url.path} does not take {request.method}"
        return error_response(405, message, headers=dict(error.headers or {}))
    return not_there(request.url.path, _ROUTES)


async def _page(request: Request) -> Response:
    return HTMLResponse((files(__package__) / "page.html").read_text(encoding="utf-8"), headers=_PAGE_HEADERS)


async def _health(request: Request) -> Response:
    service: Service = request.app.state.service
    is_stopping = service.stopping.is_set()
    facts: dict[str, Any] = {
        "status": "stopping" if is_stopping else "ok",
        "model": service.model_id,
        "recordings": service.n_open,
    }
    facts |= {"languages": service.transcriber.languages, "language": service.language}
    return JSONResponse(facts, 503 if is_stopping else 200)


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return PlainTextResponse(service.metrics.text(service.gauges()), media_type="text/plain; version=0.0.4")


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [model_facts(request.app.state.service)]})


async def _model(request: Request) -> Response:
    service: Service = request.app.state.service
    if (name := request.path_params["id"]) != service.model_id:
        return error_response(
            404, f"there is no model {name!r}; there is {service.model_id!r}", "model", "model_not_found"
        )
    return JSONResponse(model_facts(service))
