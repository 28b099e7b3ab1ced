"""A card with an own key, which takes its time, in a simulator of its own: used over TCP like any other."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import demail_hw
from demail_hw.cli.simulator_process import running_simulator
from demail_hw.identity import KeyRole
from demail_hw_simulators.ca import telesec_ca

# A signature takes longer than half of the waiting time, so that the card asks for more.
SLOW_CARD = """
title = "a slow card"
extends = "netkey3"

[timing]
assumed = { other = 0, spread = 0 }

[timing.commands]
assumed = { select = 0, manage_security_environment = 0, verify = 0 }

[timing.operations.rsa-2048]
assumed = { mean = 1250 }
"""


def test_an_own_key_on_a_card_that_takes_its_time(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    issued = telesec_ca().issue_card_certificate(KeyRole.SIGNATURE, key.public_key(), holder="Someone else")
    files = {
        "key.pem": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "certificate.pem": issued.public_bytes(Encoding.PEM),
        "slow.toml": SLOW_CARD.encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with (
        running_simulator(
            "usb-server", "--listen", "127.0.0.1:0", "--personality", str(tmp_path / "slow.toml"), "--timing", "1",
            "--key", f"80={tmp_path / 'key.pem'}", "--certificate", f"80={tmp_path / 'certificate.pem'}",
        ) as address,
        demail_hw.open_provider(address, pin=lambda: b"123456") as provider,
    ):  # fmt: skip
        identity = provider.identity(KeyRole.SIGNATURE)
        assert identity.certificate == issued
        assert isinstance(identity.private_key, rsa.RSAPrivateKey)
        signature = identity.private_key.sign(b"data", padding.PKCS1v15(), SHA256())
    key.public_key().verify(signature, b"data", padding.PKCS1v15(), SHA256())
