"""The errors that the server raises, by who can do something about them.

`SettingsError` ends the start with a sentence. `ApiError` is the answer to one request. The store
errors say what a port met; services turn those that a client can act on into an `ApiError`, and the
dispatcher turns `StorageFullError` and `StoreUnavailableError` into one wherever they appear.
"""

from protocol.http_api import ErrorBody, ErrorCode
from protocol.ids import BlockId


class ServerError(Exception):
    """Base of all of them; never raised itself."""


class SettingsError(ServerError):
    """The server can not start like this. The message is a sentence for its operator."""


class ApiError(ServerError):
    """The request is answered with this status and body.

    Attributes:
        status: of HTTP.
        body: what the client reads.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        retryable: bool = False,
        retry_after: int | None = None,
        blocks: tuple[BlockId, ...] | None = None,
        head: bytes | None = None,
        journal_epoch: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(
            code.value,
            message,
            retryable,
            retry_after,
            blocks=blocks,
            head=head,
            journal_epoch=journal_epoch,
        )


class StoreError(ServerError):
    """What a store or block store met. Nothing of the operation took effect."""


class StorageFullError(StoreError):
    """No space left. What was there before is intact."""


class StoreUnavailableError(StoreError):
    """The store can not answer now; the same operation may succeed later."""


class AlreadyExistsError(StoreError):
    """An email, account, device or namespace of this name is there already.

    Attributes:
        what: "email", "account", "device" or "namespace".
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"this {what} is known already")
        self.what = what


class InvitationError(StoreError):
    """The invitation is absent, used up or expired, and one is needed."""


class HeadMismatchError(StoreError):
    """The log does not end with the event that the append expects.

    Attributes:
        head: its last event.
    """

    def __init__(self, head: bytes) -> None:
        super().__init__("the log has another head")
        self.head = head


class BlockError(StoreError):
    """The bytes that arrive are not the block that they are said to be."""


class BlockNotFoundError(StoreError):
    """The block store does not hold the block."""
