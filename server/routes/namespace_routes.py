"""``/v1/namespaces`` with their logs and records."""

from typing import Final

from protocol.errors import RemoteProtocolError
from protocol.http_api import (
    MAX_DELTA_RECORDS,
    AppendRequest,
    BurialsResponse,
    BuryRequest,
    BuryResponse,
    CommitRequest,
    CommitResponse,
    CreateNamespaceRequest,
    Cursor,
    DeltaResponse,
    ErrorCode,
    LogResponse,
    NamespacesResponse,
)
from protocol.ids import NamespaceId
from protocol.limits import MAX_BODY_BYTES, MAX_COUNTER, MAX_LOG_EVENTS
from server.errors import ApiError
from server.routes.endpoint import Access, Call, Endpoint


async def _list(call: Call) -> NamespacesResponse:
    return await call.services.namespaces.list_own(call.session)


async def _create(call: Call) -> LogResponse:
    return await call.services.namespaces.create(call.session, call.body(CreateNamespaceRequest))


async def _read_log(call: Call) -> LogResponse:
    start = call.integer("from", 0, 0, MAX_LOG_EVENTS)
    return await call.services.namespaces.read_log(call.session, _namespace(call), start)


async def _append_log(call: Call) -> LogResponse:
    return await call.services.namespaces.append_log(
        call.session, _namespace(call), call.body(AppendRequest)
    )


async def _commit(call: Call) -> CommitResponse:
    return await call.services.journal.commit(
        call.session, _namespace(call), call.body(CommitRequest)
    )


async def _delta(call: Call) -> DeltaResponse:
    text = call.text("cursor")
    try:
        cursor = Cursor.parse(text) if text else None
    except RemoteProtocolError as error:
        raise ApiError(400, ErrorCode.MALFORMED, str(error)) from error
    limit = call.integer("limit", MAX_DELTA_RECORDS, 1, MAX_DELTA_RECORDS)
    return await call.services.journal.delta(call.session, _namespace(call), cursor, limit)


async def _bury(call: Call) -> BuryResponse:
    return await call.services.burials.bury(call.session, _namespace(call), call.body(BuryRequest))


async def _burials(call: Call) -> BurialsResponse:
    after = call.integer("after", 0, 0, MAX_COUNTER)
    return await call.services.burials.after(call.session, _namespace(call), after)


def _namespace(call: Call) -> NamespaceId:
    return call.identifier("namespace", NamespaceId)


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/v1/namespaces",
        "List the namespaces of which the account is a member",
        _list,
        Access.ACCOUNT,
        response=NamespacesResponse,
    ),
    Endpoint(
        "POST",
        "/v1/namespaces",
        "Create a namespace",
        _create,
        Access.DEVICE,
        CreateNamespaceRequest,
        LogResponse,
        max_body_bytes=MAX_BODY_BYTES,
    ),
    Endpoint(
        "GET",
        "/v1/namespaces/{namespace}/log",
        "Read a namespace's log",
        _read_log,
        Access.DEVICE,
        response=LogResponse,
        query=(("from", "number of the first event; 0 if absent"),),
    ),
    Endpoint(
        "POST",
        "/v1/namespaces/{namespace}/log",
        "Append to a namespace's log",
        _append_log,
        Access.DEVICE,
        AppendRequest,
        LogResponse,
        max_body_bytes=MAX_BODY_BYTES,
    ),
    Endpoint(
        "POST",
        "/v1/namespaces/{namespace}/records",
        "Commit records",
        _commit,
        Access.DEVICE,
        CommitRequest,
        CommitResponse,
        max_body_bytes=MAX_BODY_BYTES,
    ),
    Endpoint(
        "GET",
        "/v1/namespaces/{namespace}/records",
        "Read records after a cursor",
        _delta,
        Access.DEVICE,
        response=DeltaResponse,
        query=(
            ("cursor", "EPOCH:POSITION; from the start if absent"),
            ("limit", f"records in the page; {MAX_DELTA_RECORDS} at most and if absent"),
        ),
    ),
    Endpoint(
        "POST",
        "/v1/namespaces/{namespace}/burials",
        "Bury deleted items",
        _bury,
        Access.DEVICE,
        BuryRequest,
        BuryResponse,
        max_body_bytes=MAX_BODY_BYTES,
    ),
    Endpoint(
        "GET",
        "/v1/namespaces/{namespace}/burials",
        "Read burials",
        _burials,
        Access.DEVICE,
        response=BurialsResponse,
        query=(("after", "number of the last burial that is known; 0 if absent"),),
    ),
)
