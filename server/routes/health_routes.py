"""``/healthz``, ``/readyz``, ``/metrics`` and ``/openapi.json``: for operators and their tools."""

import json
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protocol.http_api import HealthResponse
from server.errors import ServerError
from server.routes.dispatcher import (
    Gate,
    answer_encoding,
    body_response,
    error_response,
    rate_refusal,
)
from server.routes.endpoint import Endpoint
from server.routes.openapi import openapi_document


def health_routes(gate: Gate, endpoints: Iterable[Endpoint], version: str) -> list[Route]:
    """The routes."""
    services, metrics = gate.services, gate.metrics
    document = json.dumps(openapi_document(endpoints, version)).encode()

    async def healthz(request: Request) -> Response:
        """The process answers."""
        return body_response(HealthResponse(ok=True), 200, answer_encoding(request.headers))

    async def readyz(request: Request) -> Response:
        """Requests can be served: the stores answer and take writes, and the server is not ending."""
        refusal = rate_refusal(gate, request.scope)
        if refusal is not None:
            return error_response(refusal, answer_encoding(request.headers))
        is_ready = not services.notifier.is_closing
        try:
            is_ready = (
                is_ready and await services.store.is_ready() and await services.blobs.is_ready()
            )
        except ServerError:
            is_ready = False
        status = 200 if is_ready else 503
        return body_response(HealthResponse(is_ready), status, answer_encoding(request.headers))

    async def metrics_text(request: Request) -> Response:
        """What was counted."""
        refusal = rate_refusal(gate, request.scope)
        if refusal is not None:
            return error_response(refusal, answer_encoding(request.headers))
        return Response(metrics.text(), media_type=metrics.media_type)

    async def openapi(_request: Request) -> Response:
        """The API, for tools."""
        return Response(document, media_type="application/json")

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics_text),
        Route("/openapi.json", openapi),
    ]
