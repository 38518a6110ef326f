"""Certificates of every kind that somebody could show."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pi_daemon.trust.keys import key_id

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

OTHER_KINDS: Mapping[str, Callable[[], PrivateKey]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
"""Keys that are not of P-256."""


def load_key(path: Path) -> PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, PrivateKey)
    return key


def pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def self_signed(key: PrivateKey, *, name: str | None = None, may_issue: bool = False) -> bytes:
    """A certificate (DER) as ours are, but for what is given here.

    Args:
        name: otherwise it is named after its key.
    """
    if name is None:
        name = key_id(self_signed(key, name="?"))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(begin)
        .not_valid_after(begin.replace(year=9999))
        .add_extension(x509.BasicConstraints(ca=may_issue, path_length=None), critical=True)
    )
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey)
    certificate = builder.sign(key, None if is_edwards else hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.DER)
