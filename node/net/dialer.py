"""Connections to the server: TCP, and TLS that accepts the pinned key and nothing else.

Owns the pin check and the translation of what goes wrong before the first request. Refuses to know
HTTP. Called by `http_transport` (for the TLS context) and by `event_stream` (for a connection).

The pin names the server's public key. The first handshake fetches the certificate and compares its
key with the pin; every real connection then uses a context that trusts exactly this certificate, so
that nothing but a holder of that private key completes a handshake. Nothing is sent before that.
"""

from __future__ import annotations

import ssl

import trio

from node.errors import ServerError
from node.net.server_address import ServerAddress
from protocol.crypto.certificates import pin_of_certificate
from protocol.errors import RemoteProtocolError

CONNECT_TIMEOUT_S = 10.0
"""For TCP and TLS together; a lost first packet is sent again after 1, 3 and 7 s."""

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python's ssl does not name. Trust comes from the pin
# alone; a device whose clock is off by years must still reach its server to learn about it.
_NO_CHECK_TIME = 0x200000


def unreachable(address: ServerAddress, error: BaseException) -> ServerError:
    """The error for a server that can not be connected to at all."""
    reason = str(error) or type(error).__name__
    return ServerError(
        "unreachable", f"cannot reach {address.base_url}: {reason}", is_transient=True
    )


def timed_out(address: ServerAddress, doing: str) -> ServerError:
    """The error for an answer that did not come in time."""
    return ServerError("timeout", f"{address.base_url} is too slow: {doing}", is_transient=True)


def wrong_pin(address: ServerAddress) -> ServerError:
    """The error for a server that is not the one that was named."""
    return ServerError(
        "wrong_pin",
        f"{address.base_url} shows another key than the one in its URL, so nothing was sent to it: "
        "compare the URL with the one that the server prints when it starts",
    )


class Dialer:
    """Opens connections to one server.

    Concurrency: shared by all tasks of a client; the pin is looked at by one task at a time.
    """

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self._context: ssl.SSLContext | None = None
        self._looking = trio.Lock()

    async def tls_context(self) -> ssl.SSLContext:
        """The context that trusts the pinned server alone; dials once when it is not known yet.

        Raises:
            ServerError: unreachable, or its key is not the pinned one.
        """
        async with self._looking:
            if self._context is None:
                self._context = await self._context_for_pinned_key()
            return self._context

    def forget_certificate(self, context: ssl.SSLContext) -> None:
        """Makes the next connection compare the pin again: the certificate was renewed.

        `context` is the one that failed, so that a later one is not dropped by a late report.
        """
        if self._context is context:
            self._context = None

    async def open_stream(self) -> trio.abc.Stream:
        """A connection that is ready to carry a request.

        Raises:
            ServerError: unreachable, or its key is not the pinned one.
        """
        if not self.address.is_tls:
            return await self._open_tcp()
        context = await self.tls_context()
        try:
            return await self._handshake(context)
        except ssl.SSLCertVerificationError:
            self.forget_certificate(context)
        try:
            return await self._handshake(await self.tls_context())
        except ssl.SSLCertVerificationError as error:
            raise wrong_pin(self.address) from error

    async def _context_for_pinned_key(self) -> ssl.SSLContext:
        looking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        looking.check_hostname = False
        looking.verify_mode = ssl.CERT_NONE
        stream = await self._handshake(looking)
        certificate = stream.getpeercert(binary_form=True)
        await trio.aclose_forcefully(stream)
        try:
            pin = pin_of_certificate(certificate)
        except RemoteProtocolError as error:
            raise wrong_pin(self.address) from error
        if pin != self.address.pin:
            raise wrong_pin(self.address)
        return _context_trusting(certificate)

    async def _handshake(self, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
        stream = trio.SSLStream(
            await self._open_tcp(),
            context,
            server_hostname=self.address.host,
            https_compatible=True,
        )
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                await stream.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            match error:
                case trio.TooSlowError():
                    raise timed_out(self.address, "no TLS handshake") from error
                case trio.BrokenResourceError():
                    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                        raise error.__cause__ from None
                    raise unreachable(self.address, error.__cause__ or error) from error
                case _:
                    raise
        return stream

    async def _open_tcp(self) -> trio.SocketStream:
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                return await trio.open_tcp_stream(self.address.host, self.address.port)
        except trio.TooSlowError as error:
            raise timed_out(self.address, "no connection") from error
        except OSError as error:
            raise unreachable(self.address, error) from error


def _context_trusting(certificate: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The host name says nothing that the pin does not: one key, one server, under any name.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context
