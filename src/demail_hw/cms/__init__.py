"""CMS and S/MIME with a card's key: RFC 5652 and RFC 8551.

``sign`` takes a mail, a MIME entity, a text or any octets; ``decrypt`` takes what a mail client or
``openssl cms -encrypt`` made. Both take an :class:`~demail_hw.identity.Identity`, wherever its key is.
"""

from demail_hw.cms.decryption import decrypt
from demail_hw.cms.signing import SignedForm, sign

__all__ = ["SignedForm", "decrypt", "sign"]
