"""What one does to a card by hand (as TeleSec's CardManager does): its PINs, its certificates, requests for them."""

from demail_hw.card_manager.certificate_input import parse_certificate
from demail_hw.card_manager.certificates import (
    CardCertificates,
    CertificateEntry,
    CertificateState,
    KeyUse,
    WritePlan,
)
from demail_hw.card_manager.general_names import alternative_names
from demail_hw.card_manager.manager import CardManager, open_manager
from demail_hw.card_manager.pin_states import PinReport
from demail_hw.card_manager.pins import PinManager
from demail_hw.card_manager.requests import parse_subject

__all__ = [
    "CardCertificates",
    "CardManager",
    "CertificateEntry",
    "CertificateState",
    "KeyUse",
    "PinManager",
    "PinReport",
    "WritePlan",
    "alternative_names",
    "open_manager",
    "parse_certificate",
    "parse_subject",
]
