"""Which URLs a server may have, and that no other leads anywhere."""

from __future__ import annotations

import pytest

from node.errors import SettingsError
from node.net.server_address import ServerAddress

PIN = "ab" * 32


@pytest.mark.parametrize(
    ("text", "host", "port", "is_tls"),
    [
        ("http://127.0.0.1:8420", "127.0.0.1", 8420, False),
        ("http://localhost", "localhost", 80, False),
        ("http://[::1]:99/", "::1", 99, False),
        ("  http://127.9.9.9:1 ", "127.9.9.9", 1, False),
        (f"https://example.org:8443#sha256={PIN}", "example.org", 8443, True),
        (f"https://192.168.1.10/#sha256={PIN.upper()}", "192.168.1.10", 443, True),
        (f"https://[fe80::1]:8443#sha256={PIN}", "fe80::1", 8443, True),
        (f"https://127.0.0.1:8443#sha256={PIN}", "127.0.0.1", 8443, True),
    ],
)
def test_a_url_is_read_and_printed_again(text, host, port, is_tls):
    address = ServerAddress.parse(text)
    assert (address.host, address.port, address.is_tls) == (host, port, is_tls)
    assert ServerAddress.parse(str(address)) == address
    assert "#" not in address.base_url


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http://example.org:80", "plain http reaches this machine only"),
        ("http://192.168.1.10:8420", "plain http reaches this machine only"),
        ("http://localhost.example.org", "plain http reaches this machine only"),
        ("http://127.0.0.1.example.org", "plain http reaches this machine only"),
        ("http://0.0.0.0:8420", "plain http reaches this machine only"),
        ("https://example.org", "lacks its pin"),
        ("https://example.org#sha256=abcd", "incomplete"),
        (f"https://example.org#md5={PIN}", "incomplete"),
        (f"https://example.org/path#sha256={PIN}", "no path or user name"),
        (f"https://user@example.org#sha256={PIN}", "no path or user name"),
        (f"https://example.org?x=1#sha256={PIN}", "no path or user name"),
        ("ftp://example.org", "not a server's URL"),
        ("example.org:8420", "not a server's URL"),
        ("http://127.0.0.1:99999", "not a server's URL"),
        ("http://[::1", "not a server's URL"),
        ("", "not a server's URL"),
    ],
)
def test_any_other_url_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(SettingsError, match=sentence):
        ServerAddress.parse(text)


def test_no_address_off_loopback_exists_without_a_pin():
    with pytest.raises(SettingsError):
        ServerAddress("example.org", 443, None)
