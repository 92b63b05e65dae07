"""A private certificate authority for a Dask cluster, and what a client needs to join one by TLS.

Whoever can talk to a Dask scheduler can run code on its workers. So a cluster that spans machines is joined by TLS
with certificates of an authority of its own: who has none of its certificates is not let in, on either side.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import dask
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from distributed import Security

from flows.run.errors import CertificateError

ROLES = ("scheduler", "worker", "client")
_AUTHORITY_DAYS = 3650
_CLOCKS_DIFFER_BY = timedelta(minutes=10)
_LISTENS_AND_CALLS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CALLS = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True)
class Certificates:
    """A directory as ``dasnet certs`` makes it: ``ca.pem``, and for each role ``ROLE.pem`` and ``ROLE-key.pem``.

    A host needs ``ca.pem`` and the two files of its own role. ``ca-key.pem`` can make further certificates: keep it
    where no cluster can read it.
    """

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def authority_key(self) -> Path:
        return self.directory / "ca-key.pem"

    def certificate(self, role: str) -> Path:
        return self.directory / f"{role}.pem"

    def key(self, role: str) -> Path:
        return self.directory / f"{role}-key.pem"

    def security(self, role: str) -> Security:
        """Dask's settings of TLS, with ``require_encryption``: an open connection is an error, never a fallback.

        Raises:
            CertificateError: a file is missing or unreadable, they do not belong together, or the time is not theirs.
        """
        certificate, key = self.certificate(role), self.key(role)
        check(authority=self.authority, certificate=certificate, key=key)
        return Security(
            require_encryption=True,
            tls_ca_file=str(self.authority),
            **{f"tls_{role}_cert": str(certificate), f"tls_{role}_key": str(key)},
        )


def configured_security() -> Security | None:
    """The client's part of Dask's own configuration (``distributed.comm.tls``), or None where nothing of it is set.

    Raises:
        CertificateError: a part of it is set.
    """
    names = [f"distributed.comm.tls.{name}" for name in ("ca-file", "client.cert", "client.key")]
    settings = {name: dask.config.get(name, default=None) for name in names}
    missing = [name for name, value in settings.items() if not value]
    if len(missing) == len(names):
        return None
    if missing:
        raise CertificateError(f"Dask's configuration has only a part of what TLS needs: {', '.join(missing)} not set")
    authority, certificate, key = map(Path, settings.values())
    check(authority=authority, certificate=certificate, key=key)
    return Security(
        require_encryption=True, tls_ca_file=str(authority), tls_client_cert=str(certificate), tls_client_key=str(key)
    )


def check(*, authority: Path, certificate: Path, key: Path) -> None:
    """Check that the three files belong together and are valid now.

    Raises:
        CertificateError: they do not; the message names files and dates, never what is in a key.
    """
    loaded = {path: _certificate(path) for path in (authority, certificate)}
    now = datetime.now(UTC)
    for path, content in loaded.items():
        begin, end = content.not_valid_before_utc, content.not_valid_after_utc
        if now > end:
            raise CertificateError(f"{path} has expired on {end:%Y-%m-%d}: `dasnet certs` again")
        if now < begin:
            raise CertificateError(
                f"{path} holds only from {begin:%Y-%m-%d %H:%M} UTC on, and here it is "
                f"{now:%Y-%m-%d %H:%M} UTC: look at this machine's clock"
            )
    try:
        loaded[certificate].verify_directly_issued_by(loaded[authority])
    except Exception as error:  # InvalidSignature, ValueError, TypeError: all say the same
        raise CertificateError(f"{certificate} was not issued by {authority}: they are of two authorities") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(f"{key} is no key of {certificate}: {error.strerror or type(error).__name__}") from error


def _no_password() -> NoReturn:
    # without it OpenSSL would ask on the terminal, where perhaps nobody sits
    raise CertificateError("the private key is encrypted, and Dask has no way to ask for its password")


def make_certificates(
    directory: Path, *, hosts: Sequence[str] = (), days: int = 365, authority: Path | None = None
) -> Certificates:
    """Make an authority and a certificate for each of :data:`ROLES`; all files or none.

    Args:
        directory: missing or empty; made with mode 0700, keys with 0600.
        hosts: names and addresses of schedulers and workers, for their certificates' SAN. Dask itself asks for a
            certificate of the authority and compares no names; other programs (a browser at the dashboard) do.
        days: until scheduler's, workers' and client's certificates expire.
        authority: directory with ``ca.pem`` and ``ca-key.pem`` of an authority that goes on issuing, so that hosts with
            old and new certificates understand each other; None = a new one.

    Raises:
        CertificateError: something is there already, or the old authority cannot be used.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CertificateError(
            f"{directory} is there already and is left as it is: certificates in use would stop to fit. "
            "Give another directory (--authority to go on with the same authority)"
        )
    if days < 1:
        raise CertificateError(f"certificates must hold at least a day, not {days}")
    names = _names(hosts)
    now = datetime.now(UTC)
    old = None if authority is None else Certificates(authority)
    signer, issuer = _new_authority(now, days) if old is None else _old_authority(old, now, days)
    directory.absolute().parent.mkdir(parents=True, exist_ok=True)
    draft = Certificates(Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.absolute().parent)))
    try:
        _write(draft.authority, _pem(issuer) if old is None else old.authority.read_bytes(), 0o644)
        if old is None:  # an old authority's key stays where it is: one copy of it is enough
            _write(draft.authority_key, _pem(signer), 0o600)
        for role in ROLES:
            key = ec.generate_private_key(ec.SECP256R1())
            issued = _issue(role, key, signer, issuer, names if role != "client" else (), now, days)
            _write(draft.certificate(role), _pem(issued), 0o644)
            _write(draft.key(role), _pem(key), 0o600)
            check(authority=draft.authority, certificate=draft.certificate(role), key=draft.key(role))
        draft.directory.replace(directory)
    except BaseException:
        shutil.rmtree(draft.directory, ignore_errors=True)
        raise
    return Certificates(directory)


def _names(hosts: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(("localhost", "127.0.0.1", *hosts)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            try:
                names.append(x509.DNSName(host))
            except ValueError as error:
                raise CertificateError(f"{host!r} is neither an address nor a host name of ASCII letters") from error
    return tuple(names)


def _new_authority(now: datetime, days: int) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"dasnet cluster authority {now:%Y-%m-%d}")
    extensions = [(x509.BasicConstraints(ca=True, path_length=0), True), (_usage(authority=True), True)]
    until = now + timedelta(days=max(days, _AUTHORITY_DAYS))
    return key, _sign(name, key, name, key, now, until, extensions)


def _old_authority(old: Certificates, now: datetime, days: int) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    check(authority=old.authority, certificate=old.authority, key=old.authority_key)
    issuer = _certificate(old.authority)
    if now + timedelta(days=days) > issuer.not_valid_after_utc:
        raise CertificateError(
            f"{old.authority} expires on {issuer.not_valid_after_utc:%Y-%m-%d}, before certificates of {days} days "
            "would: make a new authority, or fewer --days"
        )
    key = serialization.load_pem_private_key(old.authority_key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, issuer


def _issue(
    role: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate,
    names: tuple[x509.GeneralName, ...],
    now: datetime,
    days: int,
) -> x509.Certificate:
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(authority=False), True),
        # a client's certificate opens connections and accepts none: it cannot play the scheduler
        (x509.ExtendedKeyUsage(_CALLS if role == "client" else _LISTENS_AND_CALLS), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
        *([(x509.SubjectAlternativeName(names), False)] if names else []),
    ]
    return _sign(_name(f"dasnet {role}"), key, issuer.subject, signer, now, now + timedelta(days=days), extensions)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    """A certificate of the subject's key, by the issuer's key; `extensions`: each with whether it is critical."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER_BY)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(part: ec.EllipticCurvePrivateKey | x509.Certificate) -> bytes:
    if isinstance(part, x509.Certificate):
        return part.public_bytes(serialization.Encoding.PEM)
    return part.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    # the file has its mode from the first byte on, so that others can read it at no moment
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CertificateError(f"{path} is no certificate in PEM: {error}") from error
