"""Where a server is and how it is recognised: the URL that `server run` prints.

Owns the rule that plain http goes to loopback only and that https needs a pin. Refuses to connect.
Called by the command line, which reads the URL, and by everything in `node.net` that dials.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from node.errors import SettingsError

_PIN = re.compile(r"sha256=([0-9a-fA-F]{64})")
_EXAMPLE = "https://host:port#sha256=..., as the server printed it when it started"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server, as a person names it.

    Attributes:
        host: name or address, without the brackets of IPv6.
        pin: the SHA-256 of the server's public key (32 bytes); None on loopback without TLS.
    """

    host: str
    port: int
    pin: bytes | None = None

    def __post_init__(self) -> None:
        if self.pin is None and not _is_loopback(self.host):
            raise SettingsError(
                f"{self.host} is not this machine, so its server must be reached by {_EXAMPLE}"
            )

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Reads ``http://127.0.0.1:port`` or ``https://host:port#sha256=HEX``.

        Raises:
            SettingsError: anything else, with a sentence that says what to type.
        """
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingsError(f"{text!r} is not a server's URL; it looks like {_EXAMPLE}") from (
                error
            )
        if parts.scheme not in ("http", "https") or not host:
            raise SettingsError(f"{text!r} is not a server's URL; it looks like {_EXAMPLE}")
        if parts.path not in ("", "/") or parts.query or parts.username is not None:
            raise SettingsError("a server's URL has a host and a port, and no path or user name")
        if parts.scheme == "http":
            if not _is_loopback(host):
                raise SettingsError(
                    f"plain http reaches this machine only; reach {host} by {_EXAMPLE}"
                )
            return cls(host, port or 80)
        return cls(host, port or 443, _pin(parts.fragment))

    @property
    def is_tls(self) -> bool:
        """Whether connections are TLS to the pinned key."""
        return self.pin is not None

    @property
    def authority(self) -> str:
        """``host:port``, as the Host header has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """Scheme and authority, without the pin."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}"

    def __str__(self) -> str:
        return self.base_url if self.pin is None else f"{self.base_url}#sha256={self.pin.hex()}"


def _pin(fragment: str) -> bytes:
    if not fragment:
        raise SettingsError(f"the server's URL lacks its pin; it looks like {_EXAMPLE}")
    match = _PIN.fullmatch(fragment)
    if match is None:
        raise SettingsError(f"the pin after # is incomplete; the URL looks like {_EXAMPLE}")
    return bytes.fromhex(match[1])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
