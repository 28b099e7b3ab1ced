"""What one does to a card by hand: its PINs and its certificates (what TeleSec's CardManager does)."""

from demail_hw.card_manager.certificate_input import parse_certificate
from demail_hw.card_manager.certificates import CardCertificates, CertificateEntry, CertificateState, WritePlan
from demail_hw.card_manager.manager import CardManager, open_manager
from demail_hw.card_manager.pin_states import PinReport
from demail_hw.card_manager.pins import PinManager

__all__ = [
    "CardCertificates",
    "CardManager",
    "CertificateEntry",
    "CertificateState",
    "PinManager",
    "PinReport",
    "WritePlan",
    "open_manager",
    "parse_certificate",
]
