"""The webhook's certificates: made here, kept in one Secret for all replicas, renewed in time.

A server's certificate lives 90 days and its authority 10 years; each is renewed after two thirds. A new authority is
first only announced in the bundle, and signs five minutes later, when every API server has read the bundle.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ipreserve import errors
from ipreserve.kube import JsonObject, Kube
from ipreserve.store import MANAGED

log = logging.getLogger("ipreserve.certs")

SECRET = "ipreserve-webhook-tls"
AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
ANNOUNCE = timedelta(minutes=5)
# Clocks differ.
SLACK = timedelta(minutes=10)
CA, CA_KEY, TLS, TLS_KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
NEXT, NEXT_KEY, NEXT_SINCE = "next.crt", "next.key", "next-since"

# Whatever somebody may have written into the Secret.
UNREADABLE = (KeyError, TypeError, ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.InvalidVersion)


@dataclass(frozen=True)
class Pair:
    """PEM texts."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Served:
    """What the server uses, and what the API server has to trust.

    `words` are known to the replicas, and to who may read the webhook configurations, since they are part of a path
    there: the API server's. The first is in use; the next authority's is taken already.
    """

    bundle: bytes
    pair: Pair
    expires: datetime
    words: tuple[str, ...]


def make_authority(now: datetime) -> Pair:
    """A new certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ipreserve authority {now:%Y-%m-%d %H:%M:%S}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(authority: Pair, names: Sequence[str], now: datetime) -> Pair:
    """A server's certificate for these DNS names and addresses."""
    signer = x509.load_pem_x509_certificate(authority.certificate)
    signing_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ipreserve webhook")]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + SERVER_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .sign(signing_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    return Pair(
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_old(certificate: x509.Certificate, now: datetime) -> bool:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) * 2 / 3


def advance(data: Mapping[str, bytes], names: Sequence[str], now: datetime) -> dict[str, bytes] | None:
    """What the Secret should hold now; None when it is right as it is. What cannot be read is made anew.

    A next authority that cannot be read has signed nothing yet: it is dropped alone, and announced anew in its turn.
    """
    try:
        authorities = x509.load_pem_x509_certificates(data[CA])
        server = x509.load_pem_x509_certificate(data[TLS])
        _check_pair(authorities[0], data[CA_KEY])
        _check_pair(server, data[TLS_KEY])
        listed = set(_subject_names(server))
    except UNREADABLE:
        authority = make_authority(now)
        served = issue(authority, names, now)
        return {CA: authority.certificate, CA_KEY: authority.key, TLS: served.certificate, TLS_KEY: served.key}
    try:
        announced = _announced(data, now)
    except UNREADABLE:
        rest = {name: value for name, value in data.items() if name not in (NEXT, NEXT_KEY, NEXT_SINCE)}
        return advance(rest, names, now) or rest
    signer = Pair(_pem(authorities[0]), data[CA_KEY])
    if announced is not None and now - announced >= ANNOUNCE:
        signer = Pair(data[NEXT], data[NEXT_KEY])
        served = issue(signer, names, now)
        bundle = data[NEXT] + b"".join(_pem(one) for one in authorities if one.not_valid_after_utc > now)
        bundle = b"".join(dict.fromkeys(_pem(one) for one in x509.load_pem_x509_certificates(bundle)))
        return {CA: bundle, CA_KEY: signer.key, TLS: served.certificate, TLS_KEY: served.key}
    if announced is None and _is_old(authorities[0], now):
        coming = make_authority(now)
        found = {**data, CA: data[CA] + coming.certificate, NEXT: coming.certificate, NEXT_KEY: coming.key}
        return found | {NEXT_SINCE: now.isoformat().encode()}
    if _is_old(server, now) or not set(names) <= listed:
        served = issue(signer, sorted(set(names) | listed), now)
        return {**data, TLS: served.certificate, TLS_KEY: served.key}
    return None


def _announced(data: Mapping[str, bytes], now: datetime) -> datetime | None:
    """Since when the next authority is announced; None when there is none. Raises one of UNREADABLE."""
    if not {NEXT, NEXT_KEY, NEXT_SINCE} & set(data):
        return None
    _check_pair(x509.load_pem_x509_certificate(data[NEXT]), data[NEXT_KEY])
    announced = datetime.fromisoformat(data[NEXT_SINCE].decode())
    if announced > now + SLACK:
        raise ValueError("it would never sign")
    return announced


def _check_pair(certificate: x509.Certificate, key: bytes) -> None:
    """Raises one of UNREADABLE unless the key is this certificate's, and of the kind that is made here."""
    private = serialization.load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != certificate.public_key():
        raise ValueError("the key is another one's")


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _subject_names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def _word(key: bytes) -> str:
    """From an authority's key, so that it needs no place of its own and is renewed with it. It tells nothing of it."""
    return hmac.digest(key, b"ipreserve caller", "sha256").hex()[:40]


def keep(kube: Kube, namespace: str, names: Sequence[str]) -> Served:
    """Bring the Secret up to date and return what it holds; replicas that do it at once agree. Raises ApiError."""
    collection = f"/api/v1/namespaces/{namespace}/secrets"
    for _ in range(10):
        now = datetime.fromtimestamp(kube.clock.now(), UTC)
        try:
            raw: JsonObject | None = kube.get(f"{collection}/{SECRET}")
        except errors.NotFound:
            raw = None
        data = {name: base64.b64decode(value) for name, value in ((raw or {}).get("data") or {}).items()}
        after = advance(data, names, now)
        if after is None:
            end = x509.load_pem_x509_certificate(data[TLS]).not_valid_after_utc
            words = tuple(_word(data[name]) for name in (CA_KEY, NEXT_KEY) if name in data)
            return Served(data[CA], Pair(data[TLS], data[TLS_KEY]), end, words)
        log.info("certificates: %s", "made" if raw is None else "renewed")
        metadata = {"name": SECRET, "labels": MANAGED}
        if raw is not None:
            metadata["resourceVersion"] = raw["metadata"]["resourceVersion"]
        body = {
            "metadata": metadata, "type": "Opaque",
            "data": {name: base64.b64encode(value).decode() for name, value in after.items()},
        }  # fmt: skip
        try:
            method, path = ("POST", collection) if raw is None else ("PUT", f"{collection}/{SECRET}")
            kube.request(method, path, body)
        except errors.Conflict:
            continue
    raise errors.Unreachable("the Secret of the certificates is written by somebody else all the time")
