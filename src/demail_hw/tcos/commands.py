"""The commands of a TCOS 3 card as values. Sending is somebody else's."""

from demail_hw.interfaces import Buffer
from demail_hw.iso7816.apdu import MAX_SHORT_NE, CommandApdu
from demail_hw.secrets import PinPermit

__all__ = [
    "compute_digital_signature",
    "decipher",
    "manage_security_environment_for_decipher",
    "manage_security_environment_for_signature",
    "pin_status",
    "read_binary",
    "read_record",
    "select_application",
    "select_elementary_file",
    "select_master_file",
    "verify",
]

_MSE_ALGORITHM_PKCS1 = bytes((0x80, 1, 0x02))  # DO 80: the card pads PKCS#1 v1.5 and checks no ASN.1
_NO_ALGORITHM = b""  # IDKey cards refuse the DO; without it every TCOS 3 key of template B8 works raw
_RAW_BLOCK = b"\x00"  # padding indicator (ISO 7816-8, table 11): no further indication, the host pads


def select_master_file() -> CommandApdu:
    """SELECT the MF (ISO 7816-4, 11.1.1), no answer data."""
    return CommandApdu(0x00, 0xA4, 0x00, 0x0C, (b"\x3f\x00",), name="SELECT MF")


def select_application(aid: bytes) -> CommandApdu:
    """SELECT by DF name (ISO 7816-4, 11.1.1), no answer data."""
    return CommandApdu(0x00, 0xA4, 0x04, 0x0C, (aid,), name="SELECT application")


def select_elementary_file(file_id: int) -> CommandApdu:
    """SELECT an EF under the current DF (ISO 7816-4, 11.1.1), no answer data."""
    return CommandApdu(0x00, 0xA4, 0x02, 0x0C, (file_id.to_bytes(2, "big"),), name="SELECT EF")


def read_binary(offset: int, ne: int = MAX_SHORT_NE) -> CommandApdu:
    """READ BINARY of the current EF (ISO 7816-4, 11.2.3). ``offset``: below 0x8000."""
    if not 0 <= offset < 0x8000:
        raise ValueError(f"offset {offset} is not in 0..32767")
    return CommandApdu(0x00, 0xB0, offset >> 8, offset & 0xFF, ne=ne, name="READ BINARY")


def read_record(number: int) -> CommandApdu:
    """READ RECORD by number from the current EF (ISO 7816-4, 11.3.3)."""
    return CommandApdu(0x00, 0xB2, number, 0x04, ne=MAX_SHORT_NE, name="READ RECORD")


def pin_status(reference: int) -> CommandApdu:
    """VERIFY without data: asks for the tries left and spends none (ISO 7816-4, 11.5.6)."""
    return CommandApdu(0x00, 0x20, 0x00, reference, name="VERIFY (status)")


def verify(permit: PinPermit) -> CommandApdu:
    """VERIFY (ISO 7816-4, 11.5.6); the permit is spent."""
    return CommandApdu(0x00, 0x20, 0x00, permit.reference, permit.spend(), name="VERIFY")


def manage_security_environment_for_signature(key_reference: int) -> CommandApdu:
    """MSE SET of the digital signature template B6 (ISO 7816-4, 11.5.11)."""
    return _mse_set(0xB6, _MSE_ALGORITHM_PKCS1, key_reference)


def manage_security_environment_for_decipher(key_reference: int) -> CommandApdu:
    """MSE SET of the confidentiality template B8 (ISO 7816-4, 11.5.11)."""
    return _mse_set(0xB8, _NO_ALGORITHM, key_reference)


def _mse_set(template: int, algorithm: bytes, key_reference: int) -> CommandApdu:
    data = algorithm + bytes((0x84, 1, key_reference))
    return CommandApdu(0x00, 0x22, 0x41, template, (data,), name="MANAGE SECURITY ENVIRONMENT")


def compute_digital_signature(digest_info: Buffer) -> CommandApdu:
    """PSO: COMPUTE DIGITAL SIGNATURE (ISO 7816-8, 11.7) of a DigestInfo, which the card pads."""
    return CommandApdu(0x00, 0x2A, 0x9E, 0x9A, (digest_info,), MAX_SHORT_NE, "COMPUTE DIGITAL SIGNATURE")


def decipher(block: Buffer) -> CommandApdu:
    """PSO: DECIPHER (ISO 7816-8, 11.11): the raw RSA operation on a block as long as the modulus."""
    return CommandApdu(0x00, 0x2A, 0x80, 0x86, (_RAW_BLOCK, block), len(block), "DECIPHER")
