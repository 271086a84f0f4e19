"""The ASGI application: every route over one set of services.

Owns the list of endpoints and the answers for paths that there are none for. Built by
``server.main``.
"""

import time
from typing import Final

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from protocol.http_api import ErrorCode
from server.errors import ApiError
from server.metrics import Metrics
from server.routes import account_routes, block_routes, event_routes, namespace_routes
from server.routes.dispatcher import (
    MAX_LARGE_BODIES,
    Dispatcher,
    Gate,
    answer_encoding,
    error_response,
)
from server.routes.event_routes import EventSocket
from server.routes.health_routes import health_routes
from server.routes.rate_limit import RateLimiter
from server.services.all_services import Services
from server.settings import Settings

API_VERSION: Final = "1"

ENDPOINTS: Final = (
    *account_routes.ENDPOINTS,
    *namespace_routes.ENDPOINTS,
    *block_routes.ENDPOINTS,
    *event_routes.ENDPOINTS,
)


def build_app(services: Services, settings: Settings) -> Starlette:
    """The application. Call it on the loop that will serve it."""
    metrics = Metrics(lambda: services.notifier.count)
    gate = Gate(
        services,
        RateLimiter(settings.requests_per_second, settings.request_burst, time.monotonic),
        metrics,
        anyio.CapacityLimiter(MAX_LARGE_BODIES),
    )
    routes: list[Route | WebSocketRoute] = [
        Route(endpoint.path, Dispatcher(endpoint, gate), methods=[endpoint.method], name="")
        for endpoint in ENDPOINTS
    ]
    routes.append(WebSocketRoute(event_routes.SOCKET.path, EventSocket(gate), name=""))
    routes += health_routes(gate, (*ENDPOINTS, event_routes.SOCKET), API_VERSION)
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = ApiError(
            405, ErrorCode.METHOD_NOT_ALLOWED, f"{request.method} is not for this path"
        )
    else:
        refusal = ApiError(404, ErrorCode.NOT_FOUND, "there is nothing at this path")
    return error_response(refusal, answer_encoding(request.headers))
