"""The key provider of a TCOS card, and the function that opens it."""

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from demail_hw.address import Address
from demail_hw.errors import AlgorithmNotSupported, CertificateError, KeyNotFound, KeyProviderError, Layer
from demail_hw.identity import Identity, KeyRole, PrivateKey
from demail_hw.interfaces import Buffer, Deadline, KeyProvider, PinLedger, Timeouts
from demail_hw.iso7816.trace import Tracer
from demail_hw.keys.card_session import CardSession
from demail_hw.keys.certificates import build_chain, read_issuers, read_key_certificate, read_public_key
from demail_hw.keys.pin_guard import KEPT_TRIES, PinGuard
from demail_hw.keys.private_keys import card_private_key
from demail_hw.pin_ledger import ledger_for
from demail_hw.pin_sources import CallablePinSource, parse_pin_source
from demail_hw.secrets import PinSource
from demail_hw.tcos.layout import KeyOperation, KeySlot, PinName, PinSlot, Profile

__all__ = ["TcosKeyProvider", "bare_private_key", "open_provider"]

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


def bare_private_key(
    session: CardSession,
    role: KeyRole,
    source: PinSource | None,
    *,
    ledger: PinLedger,
    which: PinName = PinName.GLOBAL,
    kept: int = KEPT_TRIES,
    attended: bool = False,
) -> PrivateKey:
    """A key of an open card without its certificate, which it need not have yet: to request one.

    ``which`` and ``ledger`` as in :func:`open_provider`; ``kept`` and ``attended`` as for a
    :class:`~demail_hw.keys.pin_guard.PinGuard`.

    Errors: :class:`~demail_hw.errors.KeyNotFound` if the PIN opens no such key, or if nothing on the card tells its
    public half; :class:`~demail_hw.errors.CertificateError` if that is broken.
    """
    card = session.card
    pin = _pin_of(card.profile, which)
    key = next((each for each in card.profile.keys_opened_by(pin) if each.role is role), None)
    if key is None:
        raise _opens_no(card.profile, which, role)
    with session.transaction() as deadline:
        public_key = read_public_key(card, key, deadline=deadline)
    if public_key is None:
        raise KeyNotFound(
            f"Nothing on the card tells the public half of the {key.label}: there is no EF.PK and no certificate.",
            remedy="Import the first certificate that its issuer made for it.",
        )
    guard = PinGuard(source, serial=session.serial, ledger=ledger, kept=kept, attended=attended)
    return card_private_key(key, public_key, _CardKey(session, guard, key, pin))


def _opens_no(profile: Profile, which: PinName, role: KeyRole) -> KeyNotFound:
    return KeyNotFound(
        f"The PIN {which.value} opens no {role.value} key on this card.", remedy=_remedy_for(profile, role)
    )


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


class _CardOperation(Protocol):
    def __call__(self, key: KeySlot, data: Buffer, /, *, deadline: Deadline) -> bytes: ...


class _CardKey:
    """One key's :class:`~demail_hw.keys.private_keys.RsaOperations`: each opens a transaction of its own."""

    __slots__ = ("_card", "_guard", "_key", "_longest_block", "_pin", "_session", "decrypts", "raw")

    def __init__(self, session: CardSession, guard: PinGuard, key: KeySlot, pin: PinSlot) -> None:
        self._session = session
        self._card = session.card
        self._guard = guard
        self._key = key
        self._pin = pin
        self._longest_block = session.card.longest_block(key)
        self.raw = key.operation is KeyOperation.DECIPHER
        self.decrypts = key.decrypts

    def compute_digital_signature(self, data: bytes) -> bytes:
        """PSO CDS."""
        return self._perform(self._card.compute_digital_signature, data)

    def raw_rsa(self, block: bytes) -> bytes:
        """PSO DECIPHER."""
        if len(block) > self._longest_block:
            raise self._too_long(block)
        return self._perform(self._card.decipher, block)

    def _too_long(self, block: bytes) -> AlgorithmNotSupported:
        return AlgorithmNotSupported(
            f"The {self._key.label} works on blocks of {len(block)} bytes, and only {self._longest_block} fit into a "
            "command through this reader; nothing was sent.",
            remedy="Use a reader with extended APDUs: this card takes no command in pieces.",
            layer=Layer.READER,
        )

    def suspect(self) -> None:
        """Look at the card again before anything else."""
        self._session.suspect()

    def _perform(self, operation: _CardOperation, data: bytes) -> bytes:
        try:
            return self._perform_once(operation, data)
        except BaseException:  # an interrupt leaves as open what the card did as an error
            self._session.suspect()
            raise

    def _perform_once(self, operation: _CardOperation, data: bytes) -> bytes:
        # What the session's own transaction() does, without its generator: here every signature comes by.
        deadline = self._session.deadline()
        with self._session.connection.transaction(deadline=deadline):
            self._session.ensure_same_card(deadline=deadline)
            if self._card.is_verified(self._pin) or self._is_open_still(deadline):
                return operation(self._key, data, deadline=deadline)
        # Outside: a person may need longer to type than a command may take.
        with self._guard.ask(self._pin) as secret, self._session.transaction() as deadline:
            self._guard.open(self._card, self._pin, secret, deadline=deadline)
            return operation(self._key, data, deadline=deadline)

    def _is_open_still(self, deadline: Deadline) -> bool:
        if not self._guard.is_open(self._card, self._pin, deadline=deadline):
            return False
        self._card.believe(self._pin)  # so that it is asked once, and not before every signature
        return True


class TcosKeyProvider:
    """The keys of an open TCOS card (a :class:`~demail_hw.interfaces.KeyProvider`)."""

    def __init__(
        self, session: CardSession, source: PinSource | None, *, ledger: PinLedger, which: PinName = PinName.GLOBAL
    ) -> None:
        self._session = session
        card = session.card
        pin = _pin_of(card.profile, which)
        self._which = which
        self._keys = card.profile.keys_opened_by(pin)
        guard = PinGuard(source, serial=session.serial, ledger=ledger)
        with session.transaction() as deadline:
            issuers = read_issuers(card, deadline=deadline)
        self._found: dict[KeyRole, Identity | KeyProviderError] = {}
        for key in self._keys:
            self._found[key.role] = self._load(key, _CardKey(session, guard, key, pin), issuers)
        _warn_of_weak_keys(self.identities())

    def _load(
        self, key: KeySlot, operations: _CardKey, issuers: Sequence[x509.Certificate]
    ) -> Identity | KeyProviderError:
        # A broken certificate spoils its own key, not the others; it is raised when that key is asked for.
        try:
            with self._session.transaction() as deadline:
                found = read_key_certificate(self._session.card, key, deadline=deadline)
            private_key = card_private_key(key, found.certificate.public_key(), operations, paired=found.paired)
        except (CertificateError, KeyNotFound) as error:
            _LOG.warning("%s", error)
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
        """Every key of the card that has a good certificate and that the PIN opens."""
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
            raise found.with_traceback(None)  # it is kept: without this, it would grow with each call
        raise _opens_no(self._session.card.profile, self._which, role)

    def close(self) -> None:
        """Let the card go. Closing twice is allowed."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pin_of(profile: Profile, name: PinName) -> PinSlot:
    try:
        return profile.pin(name)
    except KeyError:
        names = ", ".join(slot.name.value for slot in profile.pins)
        raise KeyNotFound(
            f"This {profile.name} card has no PIN {name.value}, and so no key that it opens.",
            remedy=f"Name one that it has (which= or --which): {names}.",
        ) from None


def _remedy_for(profile: Profile, role: KeyRole) -> str:
    names = [pin.name.value for pin in profile.pins if role in {key.role for key in profile.keys_opened_by(pin)}]
    if not names:
        return f"A {profile.name} card has no such key that can be used here: take another card."
    return f"Name a PIN that opens one (which= or --which): {', '.join(names)}."


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
