"""Keys, certificates and the consoles that a device admits, as files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pi_daemon.protocol.pairing import ConsoleRole
from pi_daemon.trust.consoles import MAX_CONSOLES, Consoles, TooManyConsolesError, named
from pi_daemon.trust.keys import (
    CertificateError,
    IdentityError,
    Keys,
    der_to_pem,
    in_groups,
    key_id,
    open_keys,
    pem_to_der,
    prove,
    require_proof,
)
from pi_daemon.trust.tls import console_context, device_context, peer_certificate
from tests.support.certificates import OTHER_KINDS, load_key, pem_of, self_signed

NOW = "2026-01-01T00:00:00Z"
DEVICE = "A" * 52


@pytest.fixture
def device(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "device")


@pytest.fixture
def desk(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "desk")


def test_an_identity_is_made_once_and_private(device: Keys) -> None:
    folder = device.key_path.parent
    assert open_keys(folder) == device
    assert device.id == key_id(device.certificate)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "key.pem": 0o600,
        "cert.pem": 0o600,
    }


def test_a_certificate_that_is_lost_or_of_another_key_is_made_again_the_same(
    device: Keys, desk: Keys
) -> None:
    for damage in (None, b"", desk.certificate_path.read_bytes()):
        device.certificate_path.unlink()
        if damage is not None:
            device.certificate_path.write_bytes(damage)
        assert open_keys(device.key_path.parent) == device
        assert pem_to_der(device.certificate_path.read_text()) == device.certificate


def test_a_key_that_is_a_link_is_refused(device: Keys, desk: Keys) -> None:
    device.key_path.unlink()
    device.key_path.symlink_to(desk.key_path)
    with pytest.raises(IdentityError, match="not a file of this user"):
        open_keys(device.key_path.parent)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_key_of_another_user_is_refused(device: Keys) -> None:
    os.chown(device.key_path, 65534, 65534)
    with pytest.raises(IdentityError, match="not a file of this user"):
        open_keys(device.key_path.parent)


def test_an_id_is_shown_in_groups(device: Keys) -> None:
    assert in_groups(device.id).replace("-", "") == device.id
    assert in_groups("ABCDEFGHIJ") == "ABCDEFG-HIJ"


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN CERTIFICATE-----\nAA\n", "é" * 10])
def test_what_is_no_certificate_is_refused(pem: str) -> None:
    with pytest.raises(ValueError, match="no certificate"):
        pem_to_der(pem)


def test_a_certificate_under_anothers_name_is_refused(desk: Keys) -> None:
    certificate = self_signed(ec.generate_private_key(ec.SECP256R1()), name=desk.id)
    with pytest.raises(CertificateError, match="not named after its key"):
        pem_to_der(der_to_pem(certificate))


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_only_keys_of_one_kind_count_in_certificates_and_in_files(device: Keys, kind: str) -> None:
    key = OTHER_KINDS[kind]()
    with pytest.raises(CertificateError, match="whose key is of another kind than P-256"):
        pem_to_der(der_to_pem(self_signed(key)))
    device.key_path.write_bytes(pem_of(key))
    with pytest.raises(IdentityError, match="holds a key of another kind than P-256"):
        open_keys(device.key_path.parent)


def test_a_certificate_that_may_issue_others_is_refused(desk: Keys) -> None:
    key = load_key(desk.key_path)
    assert pem_to_der(der_to_pem(self_signed(key))) != desk.certificate
    with pytest.raises(CertificateError, match="that may issue others"):
        pem_to_der(der_to_pem(self_signed(key, may_issue=True)))


def test_a_key_is_proved_by_its_own_signature_of_the_same_text_alone(
    device: Keys, desk: Keys
) -> None:
    proof = prove(desk, b"this")
    require_proof(desk.certificate, b"this", proof)
    for keys, text, tried in (
        (device, b"this", proof),
        (desk, b"that", proof),
        (desk, b"this", b""),
        (desk, b"this", proof[:-1]),
    ):
        with pytest.raises(CertificateError, match="without a proof of its key"):
            require_proof(keys.certificate, text, tried)


def test_an_admitted_console_is_there_at_the_next_start(tmp_path: Path, desk: Keys) -> None:
    consoles = Consoles(tmp_path / "consoles")
    console = consoles.admit(desk.certificate, "desk\x1b[2J-1", ConsoleRole.OPERATOR, NOW, DEVICE)
    assert console.id == desk.id
    assert "\x1b" not in console.name
    assert list(Consoles(tmp_path / "consoles")) == [console]
    assert (
        named(consoles, console.name)
        == named(consoles, in_groups(desk.id)[:9].lower())
        == [console]
    )
    assert named(consoles, "") == named(consoles, desk.id[:3]) == []


def test_a_revoked_console_is_gone_at_once_and_for_good(tmp_path: Path, desk: Keys) -> None:
    consoles = Consoles(tmp_path / "consoles")
    consoles.admit(desk.certificate, "desk", ConsoleRole.OPERATOR, NOW, DEVICE)
    consoles.revoke(desk.id)
    assert consoles.get(desk.id) is None
    assert list(Consoles(tmp_path / "consoles")) == []


def test_a_file_that_is_deleted_or_damaged_admits_nobody_from_the_next_look_on(
    tmp_path: Path, desk: Keys, device: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    consoles = Consoles(tmp_path / "consoles")
    for keys in (desk, device):
        consoles.admit(keys.certificate, "desk", ConsoleRole.OPERATOR, NOW, DEVICE)
    paths = {path.stem: path for path in (tmp_path / "consoles").iterdir()}
    paths[desk.id].unlink()
    (tmp_path / "consoles" / "other.json").write_text("{}")
    for _ in range(2):
        consoles.look()
    assert [console.id for console in consoles] == [device.id]
    [line] = caplog.messages
    assert "other.json is damaged" in line


def test_a_console_that_pairs_again_gets_its_new_role(tmp_path: Path, desk: Keys) -> None:
    consoles = Consoles(tmp_path / "consoles")
    for role in (ConsoleRole.OPERATOR, ConsoleRole.VIEWER):
        consoles.admit(desk.certificate, "desk", role, NOW, DEVICE)
    assert [console.role for console in consoles] == [ConsoleRole.VIEWER]


def test_so_many_consoles_and_no_more(tmp_path: Path) -> None:
    consoles = Consoles(tmp_path / "consoles")
    for i in range(MAX_CONSOLES):
        keys = open_keys(tmp_path / f"desk {i}")
        consoles.admit(keys.certificate, "desk", ConsoleRole.VIEWER, NOW, DEVICE)
    new = open_keys(tmp_path / "one more")
    with pytest.raises(TooManyConsolesError, match="revoke one"):
        consoles.admit(new.certificate, "desk", ConsoleRole.VIEWER, NOW, DEVICE)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, desk: Keys, damage: bytes) -> None:
    Consoles(tmp_path / "consoles").admit(desk.certificate, "desk", ConsoleRole.VIEWER, NOW, DEVICE)
    [path] = (tmp_path / "consoles").iterdir()
    path.write_bytes(damage)
    with pytest.raises(IdentityError, match="pair that console anew"):
        Consoles(tmp_path / "consoles")


def test_a_file_under_the_name_of_another_console_is_refused(tmp_path: Path, desk: Keys) -> None:
    Consoles(tmp_path / "consoles").admit(desk.certificate, "desk", ConsoleRole.VIEWER, NOW, DEVICE)
    [path] = (tmp_path / "consoles").iterdir()
    path.rename(path.with_name("A" * 52 + ".json"))
    with pytest.raises(IdentityError, match="damaged"):
        Consoles(tmp_path / "consoles")


def test_each_side_proves_its_key(device: Keys, desk: Keys) -> None:
    ours, theirs = shaken(
        console_context(desk, [device.certificate]), device_context(device, [desk.certificate])
    )
    assert peer_certificate(ours) == device.certificate
    assert peer_certificate(theirs) == desk.certificate
    assert ours.version() == "TLSv1.3"


def test_another_device_is_refused_in_the_handshake(device: Keys, desk: Keys) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(console_context(desk, [desk.certificate]), device_context(device, []))


def test_a_console_that_is_not_known_is_refused_in_the_handshake(device: Keys, desk: Keys) -> None:
    ours, _ = shaken(console_context(desk, [device.certificate]), device_context(device, []))
    # In TLS 1.3 the console hears of it when it reads.
    with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
        ours.read(1)


def test_a_console_without_a_certificate_gets_as_far_as_pairing(device: Keys) -> None:
    ours, theirs = shaken(console_context(None, []), device_context(device, []))
    assert peer_certificate(theirs) is None
    assert peer_certificate(ours) == device.certificate


def shaken(console: ssl.SSLContext, device: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory; raises what either raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = console.wrap_bio(down, up), device.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("a003020102", "a003020107"),  # the version
        ("2a8648ce3d0201", "2a8648ce3d0299"),  # the kind of key
        ("2a8648ce3d030107", "2a8648ce3d030199"),  # the curve
        ("03420004", "03420009"),  # the point
    ],
)
def test_a_certificate_of_a_strangers_raises_one_error_whatever_is_wrong_with_it(
    device: Keys, part: str, instead: str
) -> None:
    hostile = device.certificate.replace(bytes.fromhex(part), bytes.fromhex(instead))
    assert hostile != device.certificate
    for spoiled in (hostile, hostile[:-1], b""):
        with pytest.raises(CertificateError):
            key_id(spoiled)
