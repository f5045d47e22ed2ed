"""Certificates of a cluster's servers and of the authority that signs them: what both Secrets are to hold. Pure.

Every cluster has an authority of its own (docs/decisions/0004-certificates.md). Each is renewed after two thirds of its
life. A new authority is announced before it signs: until then clients go on trusting the old one and learn the new one
from the bundle. Every change of the bundle comes with a new server certificate, so that whoever sees that one served
knows that the bundle beside it was read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
# How long a new authority is in the bundle before it signs: the time clients have to fetch the bundle anew.
ANNOUNCE = timedelta(days=14)
# Clocks differ.
SLACK = timedelta(minutes=10)
# Keys of the Secrets. The server's: BUNDLE, SERVER, SERVER_KEY; the authority's: AUTHORITY … NEXT_KEY.
BUNDLE, SERVER, SERVER_KEY = "ca.crt", "tls.crt", "tls.key"
AUTHORITY, AUTHORITY_KEY, NEXT, NEXT_KEY = "ca.crt", "ca.key", "next.crt", "next.key"

Data = Mapping[str, str]


@dataclass(frozen=True)
class Pair:
    """A certificate and the key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


@dataclass(frozen=True)
class Certificates:
    """What a server's Secret says, but for the key. Times are UTC; `bundle` is PEM, of all authorities to trust."""

    bundle: str
    names: tuple[str, ...]
    serial: str
    expires: datetime
    renews: datetime
    authority_expires: datetime


def pem(certificate: x509.Certificate) -> str:
    """The text form."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def make_authority(title: str, now: datetime) -> Pair:
    """A new authority; `title` says for people whose."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{title} authority {now:%Y-%m-%d}"[:64])])
    certificate = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def issue(authority: Pair, names: Sequence[str], now: datetime) -> Pair:
    """A certificate for servers of these DNS names, which are each other's clients too."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has 64 characters at most; nobody looks at it when there are alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        _builder(subject, authority.certificate.subject, key, now, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + life)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def renews_at(certificate: x509.Certificate) -> datetime:
    """When two thirds of its life are over."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return start + (end - start) * 2 / 3


def advance(authority: Data, server: Data, names: Sequence[str], title: str, now: datetime) -> tuple[Data, Data]:
    """What both Secrets should hold now, given what they hold ({} for absent); the very same when that is right.

    1. What cannot be read is made anew.
    2. An old authority gets a successor, which is announced, and takes over when it has been for long enough.
    3. The bundle: both, and those before them for as long as certificates of theirs may be served.
    4. The server's certificate is issued anew when it is old, lacks names, is signed by nobody in the bundle, or the
       bundle changes. But when the authority was lost, its last certificate is kept as long as it lasts: clients do not
       know the new authority yet.
    """
    signer, coming = read_pair(authority, AUTHORITY, AUTHORITY_KEY), read_pair(authority, NEXT, NEXT_KEY)
    known = read_bundle(server.get(BUNDLE, ""))
    lost = signer is None and bool(known)
    if signer is None:
        signer, coming = coming or make_authority(title, now), None
    if coming is None and now >= renews_at(signer.certificate):
        coming = make_authority(title, now)
    if coming is not None and now >= coming.certificate.not_valid_before_utc + SLACK + ANNOUNCE:
        signer, coming = coming, None
    trusted = [signer.certificate, *([coming.certificate] if coming else [])]
    if now < signer.certificate.not_valid_before_utc + SLACK + ANNOUNCE + SERVER_LIFE:
        trusted += [one for one in known if one not in trusted and one.not_valid_after_utc > now]
    wished = {AUTHORITY: signer.pem, AUTHORITY_KEY: signer.key_pem}
    if coming is not None:
        wished |= {NEXT: coming.pem, NEXT_KEY: coming.key_pem}
    bundle = "".join(pem(one) for one in trusted)
    served = read_pair(server, SERVER, SERVER_KEY)
    if served is not None and _is_good(served.certificate, names, trusted, now):
        if server.get(BUNDLE) == bundle:
            return wished, server
        if lost:
            return wished, {**server, BUNDLE: bundle}
    made = issue(signer, names, now)
    return wished, {BUNDLE: bundle, SERVER: made.pem, SERVER_KEY: made.key_pem}


def _is_good(
    certificate: x509.Certificate, names: Sequence[str], trusted: Sequence[x509.Certificate], now: datetime
) -> bool:
    return now < renews_at(certificate) and set(names) <= set(_names(certificate)) and any(
        _signed_by(certificate, one) for one in trusted
    )  # fmt: skip


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return found.get_values_for_type(x509.DNSName)


def read_pair(data: Data, certificate: str, key: str) -> Pair | None:
    """None for what is absent, no PEM, or does not belong together."""
    try:
        read = x509.load_pem_x509_certificate(data[certificate].encode())
        secret = serialization.load_pem_private_key(data[key].encode(), None)
    except (KeyError, ValueError, TypeError):
        return None
    if not isinstance(secret, ec.EllipticCurvePrivateKey) or secret.public_key() != read.public_key():
        return None
    return Pair(read, secret)


def read_bundle(text: str) -> list[x509.Certificate]:
    """Certificates of a PEM text; none when it cannot be read."""
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return []


def described(server: Data) -> Certificates | None:
    """What a server's Secret says; None when it cannot be read."""
    served, bundle = read_pair(server, SERVER, SERVER_KEY), read_bundle(server.get(BUNDLE, ""))
    if served is None or not bundle:
        return None
    one = served.certificate
    signers = [authority for authority in bundle if _signed_by(one, authority)]
    return Certificates(
        server[BUNDLE], tuple(_names(one)), f"{one.serial_number:x}", one.not_valid_after_utc, renews_at(one),
        min(authority.not_valid_after_utc for authority in signers or bundle),
    )  # fmt: skip
