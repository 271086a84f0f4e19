"""A server on a real socket that answers as a test says, byte for byte.

For what the real server never does: truncated, oversized and foreign answers, redirects, silence,
another certificate. Everything else is tested against the real server.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from protocol.body_codec import Body
from protocol.crypto.certificates import make_self_signed, pin_of_certificate_pem


@dataclass
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """`respond` gives the raw bytes of an answer; b"" hangs up, None stays silent."""

    respond: Callable[[Received], bytes | None]
    port: int = 0
    pin: bytes | None = None
    connections: int = 0
    seen: list[Received] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    silent: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        if self.pin is None:
            return f"http://127.0.0.1:{self.port}"
        return f"https://127.0.0.1:{self.port}#sha256={self.pin.hex()}"

    def use_certificate(self, directory: Path, *, keep_key: bool = False) -> bytes:
        """From now on shows a fresh certificate; returns its pin."""
        certificate, key = make_self_signed(["127.0.0.1"])
        (directory / "certificate.pem").write_bytes(certificate)
        (directory / "key.pem").write_bytes(key)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
        return pin_of_certificate_pem(certificate)

    async def serve_connection(self, raw: trio.SocketStream) -> None:
        self.connections += 1
        stream: trio.abc.Stream = raw
        if self.tls is not None:
            stream = trio.SSLStream(raw, self.tls, server_side=True, https_compatible=True)
        try:
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    if not (data := await stream.receive_some(65536)):
                        return
                    buffer += data
                    if buffer.startswith(b"\x16\x03"):  # a TLS greeting, where none is expected
                        await stream.send_all(answer(b"", 400))
                        return
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
                length = int(headers.get("content-length", "0"))
                while len(buffer) < length:
                    buffer += await stream.receive_some(65536)
                received = Received(method, target, headers, buffer[:length])
                buffer = buffer[length:]
                self.seen.append(received)
                raw_answer = self.respond(received)
                if raw_answer is None:
                    self.silent.set()
                    await trio.sleep_forever()
                if not raw_answer:
                    return
                await stream.send_all(raw_answer)
                if b"connection: close" in raw_answer[:500]:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def scripted(
    respond: Callable[[Received], bytes | None], tls_in: Path | None = None
) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(respond)
    if tls_in is not None:
        server.pin = server.use_certificate(tls_in)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(
                server.serve_connection, 0, host="127.0.0.1", task_status=task_status
            )
        )
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


def answer(
    body: Body | bytes = b"", status: int = 200, headers: str = "", *, length: int | None = None
) -> bytes:
    content = body if isinstance(body, bytes) else body.to_wire()
    size = len(content) if length is None else length
    return f"HTTP/1.1 {status} X\r\ncontent-length: {size}\r\n{headers}\r\n".encode() + content
