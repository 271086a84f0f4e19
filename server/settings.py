"""How one server process is set up: frozen values, valid once built.

Owns the parsing of what the operator writes. Reads no files. Built by ``server.main`` from the
command line.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from server.errors import SettingsError

DEFAULT_LISTEN: Final = "127.0.0.1:8420"


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes of a server process.

    Attributes:
        data: the directory that it owns.
        host, port: where it listens; port 0 lets the system choose.
        database: the SQLite file.
        blobs: the directory of the blocks.
        certificate, key: PEM files; None for the ones that the server makes.
        open_registration: accounts need no invitation.
        token_lifetime_s: of access tokens.
        reserve_bytes: free space below which no more blocks are taken.
        requests_per_second, request_burst: of one address that has not proved anything.
    """

    data: Path
    host: str
    port: int
    database: Path
    blobs: Path
    certificate: Path | None = None
    key: Path | None = None
    open_registration: bool = False
    token_lifetime_s: int = 600
    reserve_bytes: int = 64 * 1024 * 1024
    requests_per_second: float = 20
    request_burst: int = 200

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_listen(text: str) -> tuple[str, int]:
    """The host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    Raises:
        SettingsError: it is written otherwise.
    """
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise SettingsError(f"--listen takes HOST:PORT, such as {DEFAULT_LISTEN}, not {text!r}")
    return host, int(port)


def parse_location(text: str | None, scheme: str, default: Path) -> Path:
    """The path of a URL such as ``sqlite:///srv/atoll/server.db``.

    Raises:
        SettingsError: another scheme, or a host in it.
    """
    if text is None:
        return default
    parts = urlsplit(text)
    if parts.scheme != scheme or parts.netloc or not parts.path.startswith("/"):
        raise SettingsError(
            f"this release stores in {scheme}:///ABSOLUTE/PATH only, not in {text!r}"
        )
    return Path(parts.path)
