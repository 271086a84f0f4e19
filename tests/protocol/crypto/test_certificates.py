"""A server's own certificate serves TLS, and its pin follows its key."""

import datetime
import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from protocol.crypto.certificates import (
    make_self_signed,
    pin_of_certificate,
    pin_of_certificate_pem,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError


def _handshake(certificate, key, tmp_path):
    (tmp_path / "certificate.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    client_context = ssl.create_default_context(cadata=certificate.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="atoll.example")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client


def test_tls_accepts_the_certificate_and_shows_the_pinned_key(tmp_path):
    certificate, key = make_self_signed(["atoll.example", "192.0.2.1"])
    client = _handshake(certificate, key, tmp_path)
    der = client.getpeercert(binary_form=True)
    public = serialization.load_pem_private_key(key, None).public_key()
    spki = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert pin_of_certificate(der) == hashlib.sha256(spki).digest()
    assert pin_of_certificate_pem(certificate) == pin_of_certificate(der)


def test_the_certificate_names_hosts_and_addresses_and_lasts_ten_years():
    certificate, _ = make_self_signed(["atoll.example", "b\u00fccher.example", "192.0.2.1", "::1"])
    parsed = x509.load_pem_x509_certificate(certificate)
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["atoll.example", "xn--bcher-kva.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "::1"]
    now = datetime.datetime.now(datetime.UTC)
    assert parsed.not_valid_before_utc < now
    assert parsed.not_valid_after_utc > now + datetime.timedelta(days=3650)


def test_two_certificates_have_two_pins():
    first, _ = make_self_signed(["localhost"])
    second, _ = make_self_signed(["localhost"])
    assert pin_of_certificate_pem(first) != pin_of_certificate_pem(second)


@pytest.mark.parametrize("names", [[], ["a" * 70 + ".example"]])
def test_a_certificate_needs_real_names(names):
    with pytest.raises(LocalProtocolError):
        make_self_signed(names)


@given(noise=st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_certificate(noise):
    with pytest.raises(RemoteProtocolError):
        pin_of_certificate(noise)
    with pytest.raises(RemoteProtocolError):
        pin_of_certificate_pem(noise)


def test_any_damaged_certificate_has_a_pin_or_is_refused():
    der = ssl.PEM_cert_to_DER_cert(make_self_signed(["localhost"])[0].decode())
    refused = 0
    for position in range(len(der)):
        damaged = der[:position] + bytes([der[position] ^ 0x55]) + der[position + 1 :]
        try:
            assert len(pin_of_certificate(damaged)) == 32
        except RemoteProtocolError:
            refused += 1
    assert refused > 20
