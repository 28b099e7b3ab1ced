"""``demail-hw simulate usb-server --profile``: our driver over TCP to a reader of each exchange level."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw import KeyRole, open_provider
from demail_hw.cli.simulator_process import running_simulator


@pytest.mark.parametrize("profile", ["cloud_2700_r", "short_apdu", "tpdu_auto_ifsd", "host_pps"])
def test_a_card_signs_in_a_reader_of_each_level(profile: str) -> None:
    with (
        running_simulator("usb-server", "--listen", "127.0.0.1:0", "--profile", profile) as address,
        open_provider(address, pin=lambda: b"123456") as provider,
    ):
        key = provider.identity(KeyRole.SIGNATURE).private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(b"De-Mail", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"De-Mail", padding.PKCS1v15(), hashes.SHA256())
