"""The commands of a TCOS card as values. Sending is somebody else's."""

from demail_hw.interfaces import Buffer, PinOperation
from demail_hw.iso7816.apdu import MAX_SHORT_NE, CommandApdu
from demail_hw.secrets import PinPermit
from demail_hw.tcos.layout import Application, SecurityEnvironment

__all__ = [
    "change_reference_data",
    "compute_digital_signature",
    "decipher",
    "manage_security_environment",
    "pin_status",
    "read_binary",
    "read_record",
    "reset_retry_counter",
    "select_application",
    "select_elementary_file",
    "select_for_control_parameters",
    "select_master_file",
    "update_binary",
    "verify",
]

_ALGORITHM = 0x80
_KEY = 0x84
"""Data objects of a control reference template (ISO 7816-4, 10.3): an algorithm, and a private key."""


def select_master_file() -> CommandApdu:
    """SELECT the MF (ISO 7816-4, 11.1.1), no answer data."""
    return CommandApdu(0x00, 0xA4, 0x00, 0x0C, (b"\x3f\x00",), name="SELECT MF")


def select_application(application: Application) -> CommandApdu:
    """SELECT by DF name or by path from the MF (ISO 7816-4, 11.1.1), no answer data."""
    return CommandApdu(0x00, 0xA4, application.method, 0x0C, (application.location,), name="SELECT application")


def select_elementary_file(file_id: int) -> CommandApdu:
    """SELECT an EF under the current DF (ISO 7816-4, 11.1.1), no answer data."""
    return CommandApdu(0x00, 0xA4, 0x02, 0x0C, (file_id.to_bytes(2, "big"),), name="SELECT EF")


def select_for_control_parameters(file_id: int) -> CommandApdu:
    """SELECT an EF under the current DF; its control parameters come back (ISO 7816-4, 11.1.1 and 7.4)."""
    data = (file_id.to_bytes(2, "big"),)
    return CommandApdu(0x00, 0xA4, 0x02, 0x04, data, MAX_SHORT_NE, "SELECT EF (FCP)")


def read_binary(offset: int, ne: int = MAX_SHORT_NE) -> CommandApdu:
    """READ BINARY of the current EF (ISO 7816-4, 11.2.3). ``offset``: below 0x8000."""
    p1, p2 = _offset(offset)
    return CommandApdu(0x00, 0xB0, p1, p2, ne=ne, name="READ BINARY")


def update_binary(offset: int, data: Buffer) -> CommandApdu:
    """UPDATE BINARY of the current EF (ISO 7816-4, 11.2.5). ``offset``: below 0x8000."""
    p1, p2 = _offset(offset)
    return CommandApdu(0x00, 0xD6, p1, p2, (data,), name="UPDATE BINARY")


def _offset(offset: int) -> tuple[int, int]:
    if not 0 <= offset < 0x8000:
        raise ValueError(f"offset {offset} is not in 0..32767")
    return offset >> 8, offset & 0xFF


def read_record(number: int) -> CommandApdu:
    """READ RECORD by number from the current EF (ISO 7816-4, 11.3.3)."""
    return CommandApdu(0x00, 0xB2, number, 0x04, ne=MAX_SHORT_NE, name="READ RECORD")


def pin_status(reference: int) -> CommandApdu:
    """VERIFY without data: asks for the tries left and spends none (ISO 7816-4, 11.5.6)."""
    return CommandApdu(0x00, 0x20, 0x00, reference, name="VERIFY (status)")


def verify(permit: PinPermit) -> CommandApdu:
    """VERIFY (ISO 7816-4, 11.5.6); the permit is spent."""
    return CommandApdu(0x00, 0x20, 0x00, permit.reference, permit.spend(PinOperation.VERIFY), name="VERIFY")


def change_reference_data(permit: PinPermit) -> CommandApdu:
    """CHANGE REFERENCE DATA (ISO 7816-4, 11.5.7) of the old PIN or the NullPIN, and the new one; the permit is
    spent."""
    data = permit.spend(PinOperation.CHANGE, PinOperation.INITIALIZE)
    return CommandApdu(0x00, 0x24, 0x00, permit.reference, data, name="CHANGE REFERENCE DATA")


def reset_retry_counter(permit: PinPermit) -> CommandApdu:
    """RESET RETRY COUNTER (ISO 7816-4, 11.5.10) of the PUK and the new PIN; the permit is spent."""
    data = permit.spend(PinOperation.UNBLOCK)
    return CommandApdu(0x00, 0x2C, 0x00, permit.reference, data, name="RESET RETRY COUNTER")


def manage_security_environment(environment: SecurityEnvironment, key_reference: int) -> CommandApdu:
    """MANAGE SECURITY ENVIRONMENT: SET of a template (ISO 7816-4, 11.5.11)."""
    algorithm = b"" if environment.algorithm is None else bytes((_ALGORITHM, 1, environment.algorithm))
    data = algorithm + bytes((_KEY, 1, key_reference))
    return CommandApdu(0x00, 0x22, environment.p1, environment.template, (data,), name="MANAGE SECURITY ENVIRONMENT")


def compute_digital_signature(data: Buffer) -> CommandApdu:
    """PSO: COMPUTE DIGITAL SIGNATURE (ISO 7816-8, 11.7) of a DigestInfo, which the card pads, or of a digest."""
    return CommandApdu(0x00, 0x2A, 0x9E, 0x9A, (data,), MAX_SHORT_NE, "COMPUTE DIGITAL SIGNATURE")


def decipher(padding_indicator: bytes, block: Buffer) -> CommandApdu:
    """PSO: DECIPHER (ISO 7816-8, 11.11) of a block as long as the modulus. ``padding_indicator``: one byte."""
    return CommandApdu(0x00, 0x2A, 0x80, 0x86, (padding_indicator, block), len(block), "DECIPHER")
