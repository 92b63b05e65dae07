"""Certificates of a private authority, looked at with OpenSSL's own command."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import dask
import pytest

from flows.cluster.certificates import ROLES, Certificates, configured_security, make_certificates
from flows.run.errors import CertificateError
from tests.flows.conftest import Dasnet

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def openssl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(
        tmp_path_factory.mktemp("certs") / "certs", hosts=["dask-scheduler", "10.0.0.7", "fe80::1"], days=90
    )


def test_openssl_accepts_each_role_for_what_it_does_and_nothing_more(made: Certificates) -> None:
    for role, purpose, good in (
        ("scheduler", "sslserver", True),
        ("scheduler", "sslclient", True),
        ("worker", "sslserver", True),
        ("worker", "sslclient", True),
        ("client", "sslclient", True),
        ("client", "sslserver", False),
    ):
        ended = openssl(
            "verify", "-x509_strict", "-CAfile", made.authority, "-purpose", purpose, made.certificate(role)
        )
        assert (ended.returncode == 0) is good, (role, purpose, ended.stderr)
    for role in ROLES:
        of_certificate = openssl("x509", "-in", made.certificate(role), "-noout", "-pubkey").stdout
        assert of_certificate == openssl("pkey", "-in", made.key(role), "-pubout").stdout != ""


def test_names_addresses_and_validity_stand_in_them(made: Certificates) -> None:
    text = openssl("x509", "-in", made.certificate("scheduler"), "-noout", "-text").stdout
    for name in ("DNS:dask-scheduler", "DNS:localhost", "IP Address:10.0.0.7", "IP Address:FE80:0:0:0:0:0:0:1"):
        assert name in text
    day = 24 * 3600
    assert openssl("x509", "-in", made.certificate("client"), "-noout", "-checkend", 89 * day).returncode == 0
    assert openssl("x509", "-in", made.certificate("client"), "-noout", "-checkend", 91 * day).returncode == 1


def test_keys_are_their_owners_alone(made: Certificates) -> None:
    keys = [made.authority_key, *map(made.key, ROLES)]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 4
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700


def test_nothing_is_overwritten_and_nothing_half_written(made: Certificates, tmp_path: Path, dasnet: Dasnet) -> None:
    before = {path: path.read_bytes() for path in made.directory.iterdir()}
    ended = dasnet("certs", made.directory)
    assert ended.code == 2
    assert str(made.directory) in ended.err
    assert "is there already" in ended.err
    assert {path: path.read_bytes() for path in made.directory.iterdir()} == before
    ended = dasnet("certs", tmp_path / "new", "--host", "mañana.example")
    assert ended.code == 2
    assert "mañana.example" in ended.err
    assert list(tmp_path.iterdir()) == []
    ended = dasnet("certs", tmp_path / "new", "--host", "node7")
    assert ended.code == 0, ended.err
    assert "PRIVATE KEY" not in ended.out + ended.err
    assert "Keep" in ended.err
    assert "ca-key.pem off the cluster" in ended.err


def test_an_authority_goes_on_issuing_so_that_old_and_new_trust_each_other(made: Certificates, tmp_path: Path) -> None:
    renewed = make_certificates(tmp_path / "renewed", authority=made.directory)
    assert not renewed.authority_key.exists()
    assert openssl("verify", "-CAfile", made.authority, renewed.certificate("worker")).returncode == 0
    assert renewed.security("worker").require_encryption
    with pytest.raises(CertificateError, match="before certificates of 100000 days would"):
        make_certificates(tmp_path / "too long", authority=made.directory, days=100_000)
    with pytest.raises(CertificateError, match=r"ca\.pem cannot be read"):
        make_certificates(tmp_path / "none", authority=tmp_path / "nowhere")


def test_what_does_not_fit_is_refused_by_name(made: Certificates, tmp_path: Path) -> None:
    other = make_certificates(tmp_path / "other")
    mixed = Certificates(tmp_path / "mixed")
    shutil.copytree(made.directory, mixed.directory)
    shutil.copy(other.authority, mixed.authority)
    with pytest.raises(CertificateError, match=r"client\.pem was not issued by .*ca\.pem"):
        mixed.security("client")
    shutil.copy(made.authority, mixed.authority)
    shutil.copy(other.key("client"), mixed.key("client"))
    with pytest.raises(CertificateError, match=r"client-key\.pem is no key of .*client\.pem"):
        mixed.security("client")
    mixed.key("client").unlink()
    with pytest.raises(CertificateError, match=r"client-key\.pem"):
        mixed.security("client")
    mixed.certificate("client").write_text("not a certificate")
    with pytest.raises(CertificateError, match=r"client\.pem is no certificate"):
        mixed.security("client")


def test_an_expired_certificate_is_refused_with_its_date(made: Certificates, tmp_path: Path) -> None:
    old = Certificates(tmp_path / "old")
    shutil.copytree(made.directory, old.directory)
    request = tmp_path / "request.pem"
    assert openssl("req", "-new", "-key", made.key("client"), "-subj", "/CN=late", "-out", request).returncode == 0
    signed = openssl(
        *("x509", "-req", "-in", request, "-CA", made.authority, "-CAkey", made.authority_key, "-days", "-1"),
        *("-CAcreateserial", "-CAserial", tmp_path / "serial", "-out", old.certificate("client")),
    )
    if signed.returncode:
        pytest.skip(f"this openssl makes no expired certificates: {signed.stderr}")
    with pytest.raises(CertificateError, match=r"client\.pem has expired on \d{4}-\d\d-\d\d"):
        old.security("client")


def test_a_part_of_dasks_own_tls_settings_is_refused(made: Certificates) -> None:
    assert configured_security() is None
    with (
        dask.config.set({"distributed.comm.tls.ca-file": str(made.authority)}),
        pytest.raises(CertificateError, match=r"distributed\.comm\.tls\.client\.cert, .*client\.key not set"),
    ):
        configured_security()
