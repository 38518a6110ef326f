"""A key that is made once and is the identity of a device or of a console; its certificate.

The certificate is signed by its own key and valid for ever: no clock and no authority is asked. Who
somebody is says the hash of the public key alone.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pi_daemon.durable import put_in_place
from pi_daemon.paths import make_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

ID_LENGTH: Final = 52
_BEGIN: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_END: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class IdentityError(Exception):
    """A key or what belongs to it cannot be used; the message says how to mend it."""


class CertificateError(ValueError):
    """What was given as a certificate cannot be read, or is of another kind than ours."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The files of an identity, checked."""

    id: str
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER) in base32, without padding: 52 characters."""
    key_path: Path
    certificate_path: Path
    certificate: bytes
    """DER."""


def open_keys(folder: Path) -> Keys:
    """The identity in a private folder; made if there is none.

    Raises:
        IdentityError: the key is broken, another user's, or open to others.
        UnsafePathError: the folder is open to others.
        OSError: the disk refuses.
    """
    make_private(folder, group_may_pass=True)
    key_path, path = folder / "key.pem", folder / "cert.pem"
    certificate = _self_signed(_load_or_make_key(key_path))
    pem = der_to_pem(certificate).encode()
    if not path.exists() or path.read_bytes() != pem:
        write_privately(path, pem)
    return Keys(key_id(certificate), key_path, path, certificate)


def key_id(certificate: bytes) -> str:
    """The id of whoever holds the key of a certificate (DER); raises CertificateError: it cannot be
    read."""
    from cryptography import x509

    try:
        return _id_of(x509.load_der_x509_certificate(certificate))
    except Exception as error:  # a stranger's bytes: the parser raises more than it documents
        raise CertificateError("a certificate that cannot be read") from error


def pem_to_der(pem: str) -> bytes:
    """Raises CertificateError: it is no certificate, or of another kind than ours."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        is_ours = _is_p256(certificate.public_key())
        may_issue = _may_issue(certificate)
        is_named = certificate.subject.rfc4514_string() == f"CN={_id_of(certificate)}"
    except Exception as error:  # a stranger's bytes: the parser raises more than it documents
        raise CertificateError("no certificate") from error
    if not is_ours:
        raise CertificateError("a certificate whose key is of another kind than P-256")
    if not is_named:
        # Under somebody else's name it could get in the way of theirs.
        raise CertificateError("a certificate that is not named after its key")
    if may_issue:
        # TLS would take what it has issued for it.
        raise CertificateError("a certificate that may issue others")
    return _der(certificate)


def prove(keys: Keys, what: bytes) -> bytes:
    """Sign with the key of an identity: ECDSA with SHA-256, DER."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return _load_or_make_key(keys.key_path).sign(what, ec.ECDSA(hashes.SHA256()))


def require_proof(certificate: bytes, what: bytes, proof: bytes) -> None:
    """Raises CertificateError: `proof` is not what `prove` makes with the key of a certificate of
    `pem_to_der`."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = x509.load_der_x509_certificate(certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(proof, what, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise CertificateError("a certificate without a proof of its key") from None


def der_to_pem(certificate: bytes) -> str:
    import ssl

    return ssl.DER_cert_to_PEM_cert(certificate)


def in_groups(identity: str) -> str:
    """An id for people to compare: groups of seven characters."""
    return "-".join(identity[i : i + 7] for i in range(0, len(identity), 7))


def write_privately(path: Path, content: bytes) -> None:
    """Write a file that only this user can read. On return it survives a power cut."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    put_in_place(temporary, path)


def _load_or_make_key(path: Path) -> EllipticCurvePrivateKey:
    # Imported here, as it takes a while and 10 MB.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not path.exists():
        new = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_privately(path, new)
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        raise IdentityError(
            f"{path} is not a file of this user's: chown it to the user who runs this, or delete it, "
            "and there will be a new identity"
        )
    if mode & 0o077:
        raise IdentityError(
            f"{path} has mode {mode:04o}: others can read this key. If nobody has: "
            f"chmod 600 {path}; otherwise delete it, and there will be a new identity"
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(
            f"{path} holds no private key that can be read: restore it, or delete it, "
            "and there will be a new identity"
        ) from error
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and _is_p256(key)):
        raise IdentityError(
            f"{path} holds a key of another kind than P-256: restore it, or delete it, "
            "and there will be a new identity"
        )
    return key


def _may_issue(certificate: Certificate) -> bool:
    """Whether it does not say that it is no authority's."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return True
    return found.value.ca


def _is_p256(key: object) -> bool:
    """Whether a key, private or public, is of the one kind that is used here."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1

    return isinstance(getattr(key, "curve", None), SECP256R1)


def _self_signed(key: EllipticCurvePrivateKey) -> bytes:
    """The same for the same key, always: peers that hold it know it again when it was lost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    public = key.public_key()
    spki = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _hash(spki))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return _der(certificate)


def _der(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _id_of(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return _hash(
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _hash(public_key: bytes) -> str:
    return base64.b32encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")
