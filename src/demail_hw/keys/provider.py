"""The key provider of a TCOS card, and the function that opens it."""

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.address import Address
from demail_hw.errors import CertificateError, KeyNotFound, KeyProviderError
from demail_hw.identity import Identity, KeyRole, PrivateKey
from demail_hw.interfaces import Buffer, KeyProvider, PinLedger, Timeouts
from demail_hw.iso7816.trace import Tracer
from demail_hw.keys.card_key import CardKey
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificate_chain import build_chain, read_issuers
from demail_hw.keys.certificates import read_key_certificate
from demail_hw.keys.key_selection import opens_no, pin_of
from demail_hw.keys.pin_guard import PinGuard
from demail_hw.keys.private_keys import card_private_key
from demail_hw.keys.validity import ValidityWatch
from demail_hw.pin_ledger import ledger_for
from demail_hw.pin_sources import CallablePinSource, parse_pin_source
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import KeySlot, PinName, PinSlot

__all__ = ["TcosKeyProvider", "open_provider"]

_LOG = logging.getLogger(__name__)
_STRONG_RSA: Final = 2048


def open_provider(
    uri: Address | str,
    pin: PinSource | str | Callable[[], Buffer] | None = None,
    *,
    which: PinName | str = PinName.GLOBAL,
    timeouts: Timeouts | None = None,
    ledger: PinLedger | None = None,
    tracer: Tracer | None = None,
) -> KeyProvider:
    """Open the keys of the card that an address means.

    ``pin``: where the PIN comes from, asked when the first key is used: a source such as
    ``"credential:demail-pin"``, a :class:`~demail_hw.secrets.PinSource`, or a function that returns the PIN's bytes.
    ``which``: the PIN to use; it decides which keys there are, the NetKey keys or the SigG key. ``ledger``: where it
    is written down what became of a PIN; by default in :func:`~demail_hw.pin_ledger.state_directory`, and in memory
    for a simulated card of this process. ``tracer``: what sees every exchange with the card, masked.

    Errors: ``ValueError`` for a malformed address or an unknown ``which``; any
    :class:`~demail_hw.errors.HardwareError` on the way.
    """
    if not isinstance(uri, Address | str):
        raise TypeError("the address is an Address, or its text such as 'usbip://HOST/'")
    source, pin_name = _pin_source(pin), _pin_name(which)
    address = Address.parse(uri) if isinstance(uri, str) else uri
    book = ledger or ledger_for(address)
    session = CardSession.open(address, timeouts=timeouts, tracer=tracer)
    with contextlib.ExitStack() as guard:
        guard.callback(session.close)
        provider = TcosKeyProvider(session, source, ledger=book, which=pin_name)
        guard.pop_all()
    return provider


def _pin_source(pin: PinSource | str | Callable[[], Buffer] | None) -> PinSource | None:
    if isinstance(pin, str):
        return parse_pin_source(pin)
    if pin is None or (hasattr(pin, "read") and not isinstance(pin, io.IOBase)):
        return pin
    if callable(pin):
        return CallablePinSource(pin)
    raise TypeError("pin is a PIN source, its text such as 'file:PATH', or a function; never the PIN itself")


def _pin_name(which: PinName | str) -> PinName:
    try:
        return PinName(which)
    except ValueError:  # its text repeats what was given, which may be a PIN in the wrong place
        raise ValueError(f"which is one of these: {', '.join(name.value for name in PinName)}") from None


class TcosKeyProvider:
    """The keys of an open TCOS card (a :class:`~demail_hw.interfaces.KeyProvider`)."""

    def __init__(
        self, session: CardSession, source: PinSource | None, *, ledger: PinLedger, which: PinName = PinName.GLOBAL
    ) -> None:
        self._session = session
        card = session.card
        pin = pin_of(card.profile, which)
        self._which = which
        self._keys = card.profile.keys_opened_by(pin)
        guard = PinGuard(source, serial=session.serial, ledger=ledger, uri=session.uri)
        with session.transaction() as deadline:
            issuers = read_issuers(card, deadline=deadline)
        self._found: dict[KeyRole, Identity | KeyProviderError] = {}
        self._untold: list[KeyProviderError] = []
        for key in self._keys:
            self._found[key.role] = self._load(key, pin, guard, issuers)
        _warn_of_weak_keys(self._good())

    def _load(
        self, key: KeySlot, pin: PinSlot, guard: PinGuard, issuers: Sequence[x509.Certificate]
    ) -> Identity | KeyProviderError:
        # A broken certificate spoils its own key, not the others; it is raised when that key is asked for.
        try:
            with self._session.transaction() as deadline:
                found = read_key_certificate(self._session.card, key, deadline=deadline)
            validity = ValidityWatch(found.certificate, key.label)
            operations = CardKey(self._session, guard, key, pin, validity=validity)
            private_key = card_private_key(key, found.certificate.public_key(), operations, paired=found.paired)
        except (CertificateError, KeyNotFound) as error:
            self._untold.append(error)
            return error
        return Identity(
            role=key.role,
            label=key.label,
            private_key=private_key,
            certificate=found.certificate,
            chain=build_chain(found.certificate, issuers),
            further_certificates=found.further,
        )

    @property
    def session(self) -> CardSession:
        """The card itself."""
        return self._session

    def identities(self) -> Sequence[Identity]:
        """Every key of the card that has a good certificate and that the PIN opens. Of the others it warns, once."""
        while self._untold:
            _LOG.warning("%s", self._untold.pop(0))
        return self._good()

    def _good(self) -> Sequence[Identity]:
        return tuple(found for found in self._found.values() if isinstance(found, Identity))

    def identity(self, role: KeyRole | str) -> Identity:
        """The key of this role, which its name names as well. ``ValueError`` if there is no such role.

        Errors: :class:`~demail_hw.errors.KeyNotFound`; :class:`~demail_hw.errors.CertificateError` if its
        certificate is broken or belongs to another key.
        """
        role = KeyRole(role)
        found = self._found.get(role)
        if isinstance(found, Identity):
            return found
        if found is not None:
            if found in self._untold:
                self._untold.remove(found)
            raise found.with_traceback(None)  # it is kept: without this, it would grow with each call
        raise opens_no(self._session.card.profile, self._which, role)

    def close(self) -> None:
        """Let the card go. Closing twice is allowed."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _warn_of_weak_keys(identities: Sequence[Identity]) -> None:
    weak = [identity.label for identity in identities if _is_weak(identity.private_key)]
    if weak:
        _LOG.warning(
            "%s: RSA below %d bits is too weak for what has to stay secret or authentic (BSI TR-02102-1).",
            ", ".join(weak),
            _STRONG_RSA,
        )


def _is_weak(private_key: PrivateKey) -> bool:
    return isinstance(private_key, rsa.RSAPrivateKey) and private_key.key_size < _STRONG_RSA
