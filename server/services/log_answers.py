"""How the services answer about logs: one place for accounts and namespaces."""

from collections.abc import Sequence

from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.http_api import ErrorCode, LogResponse
from protocol.logs import SignedEvent
from server.errors import ApiError
from server.stores.port import LogPage, StoredEvent


def stored_events(events: Sequence[SignedEvent]) -> tuple[StoredEvent, ...]:
    """Verified events as a store takes them."""
    return tuple(StoredEvent(event.id, event.to_wire()) for event in events)


def log_response(page: LogPage) -> LogResponse:
    """A page of a log as the client reads it."""
    return LogResponse(page.events, page.state.head, page.state.length)


def head_mismatch(head: bytes) -> ApiError:
    """Somebody appended first."""
    return ApiError(
        409,
        ErrorCode.HEAD_MISMATCH,
        "the log has grown meanwhile: read it and append to its new head",
        retryable=True,
        head=head,
    )


def invalid_log(error: RemoteProtocolError) -> ApiError:
    """Events that break a rule, or that only a later release understands."""
    if isinstance(error, UnsupportedFormatError):
        return ApiError(
            422, ErrorCode.UPGRADE_REQUIRED, f"{error}: the server must be upgraded first"
        )
    return ApiError(422, ErrorCode.LOG_INVALID, str(error))
