"""A PUT whose body is sent by hand, to act in the middle of it."""

from __future__ import annotations

import socket

import httpx

from tests.server.client import Client


class SlowUpload:
    """An upload whose body is sent when the test wants."""

    def __init__(self, client: Client, target: str, length: int) -> None:
        url = httpx.URL(client.url)
        assert url.port is not None
        self.socket = socket.create_connection((url.host, url.port), timeout=20)
        head = (
            f"PUT {target} HTTP/1.1\r\nhost: x\r\naccept: application/msgpack\r\n"
            f"authorization: Bearer {client.token}\r\ncontent-length: {length}\r\n\r\n"
        )
        self.socket.sendall(head.encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, bytes]:
        """Status and body; the connection is closed then."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        while len(body) < length:
            body += self.socket.recv(65536)
        self.socket.close()
        return int(head.split()[1]), body
