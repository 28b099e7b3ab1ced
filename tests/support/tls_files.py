"""Certificates for USB/IP over TLS: an authority, a server, and clients, in PEM files."""

import datetime
import ipaddress
import pathlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demail_hw_drivers.tls_stream import TlsFiles

__all__ = ["TlsAuthority"]

_DAY: Final = datetime.timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write(path: pathlib.Path, *parts: bytes) -> str:
    path.write_bytes(b"".join(parts))
    path.chmod(0o600)
    return str(path)


class TlsAuthority:
    """Issues certificates into a folder; each call makes a new key. ``above``: who issues its own; itself without."""

    def __init__(self, folder: pathlib.Path, name: str = "authority", above: "TlsAuthority | None" = None) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(name)
        issuer = above or self
        builder = issuer._builder(self._subject, self._key.public_key(), 365)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # it signs certificates
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        signed = builder.add_extension(usage, critical=True).sign(issuer._key, hashes.SHA256())
        self.ca = _write(folder / f"{name}.pem", signed.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        today = datetime.datetime.now(datetime.UTC)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - 30 * _DAY)
            .not_valid_after(today + days * _DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )

    def issue(self, name: str, *, days: int = 365, dns: str | None = None, ip: str | None = None) -> TlsFiles:
        """A certificate and key in two files, beside the authority's. ``days`` below zero: it is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(dns)] if dns else []
        names += [x509.IPAddress(ipaddress.ip_address(ip))] if ip else []
        builder = self._builder(_name(name), key.public_key(), days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return TlsFiles(
            _write(self._folder / f"{name}.pem", certificate), _write(self._folder / f"{name}.key", encoded), self.ca
        )

    def revoke(self, *certificates: str, days: int = 1) -> str:
        """The list of these files' certificates, and of no others, in a file. ``days`` below zero: it is over."""
        today = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._subject)
        builder = builder.last_update(today - 30 * _DAY).next_update(today + days * _DAY)
        for path in certificates:
            serial = x509.load_pem_x509_certificate(pathlib.Path(path).read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(today - _DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        signed = builder.sign(self._key, hashes.SHA256())
        return _write(self._folder / "revoked.crl", signed.public_bytes(serialization.Encoding.PEM))
