"""X.509: the certificate that a server makes for itself, and the pin by which nodes know it.

The pin is the SHA-256 of the SubjectPublicKeyInfo, as in RFC 7469, so it outlives a renewal with
the same key. Called by the server, which prints the pin, and by the node, which compares it.
"""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import LocalProtocolError, RemoteProtocolError

_VALIDITY = datetime.timedelta(days=3653)
"""Ten years: nobody renews a certificate that is trusted by its pin."""

_BACKDATING = datetime.timedelta(days=1)
"""Peers whose clock is somewhat behind accept it at once."""


def pin_of_certificate(der: bytes) -> bytes:
    """The SHA-256 of a certificate's SubjectPublicKeyInfo (32 bytes).

    Args:
        der: the certificate, as `ssl.SSLSocket.getpeercert(binary_form=True)` gives it.

    Raises:
        RemoteProtocolError: the bytes are no certificate.
    """
    try:
        public_key = x509.load_der_x509_certificate(bytes(der)).public_key()
        spki = public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except Exception as error:  # the parser has no common base: ValueError, UnsupportedAlgorithm...
        raise RemoteProtocolError(f"not a certificate: {type(error).__name__}") from error
    return hashlib.sha256(spki).digest()


def pin_of_certificate_pem(pem: bytes) -> bytes:
    """As `pin_of_certificate`, of the first certificate of a PEM file.

    Raises:
        RemoteProtocolError: the bytes hold no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise RemoteProtocolError("the file holds no PEM certificate") from error
    return pin_of_certificate(certificate.public_bytes(serialization.Encoding.DER))


def make_self_signed(host_names: Sequence[str]) -> tuple[bytes, bytes]:
    """A fresh ECDSA P-256 key and a certificate for it, valid for ten years from yesterday.

    Args:
        host_names: DNS names and IP addresses of the server, at least one.

    Returns:
        The certificate and the unencrypted private key (PKCS 8), both PEM. The caller keeps
        the key in a file that nobody else can read.

    Raises:
        LocalProtocolError: no name, or one that no certificate can hold.
    """
    if not host_names:
        raise LocalProtocolError("a certificate needs at least one host name")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Atoll server")])
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.BasicConstraints(ca=False, path_length=None)
    server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    try:
        alternatives = x509.SubjectAlternativeName([_general_name(host) for host in host_names])
    except ValueError as error:
        raise LocalProtocolError(f"not a host name: {error}") from error
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATING)
        .not_valid_after(now + _VALIDITY)
        .add_extension(alternatives, critical=False)
        .add_extension(authority, critical=True)
        .add_extension(server_only, critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())
