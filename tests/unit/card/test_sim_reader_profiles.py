"""``sim:...?profile=``: the driver for USB readers on a simulated one, with our keys on top."""

from typing import cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demail_hw import KeyRole, open_provider
from demail_hw.address import Address
from demail_hw.errors import ConfigurationError
from demail_hw.interfaces import Timeouts
from demail_hw_simulators.reader_profiles import reader_profiles
from demail_hw_simulators.sim_reader import SimulatedReaders


@pytest.mark.parametrize("profile", reader_profiles())
def test_a_card_signs_in_every_reader(profile: str) -> None:
    with open_provider(f"sim:netkey3?profile={profile}", pin=lambda: b"123456") as provider:
        key = cast("rsa.RSAPrivateKey", provider.identity(KeyRole.SIGNATURE).private_key)
        signature = key.sign(b"De-Mail", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"De-Mail", padding.PKCS1v15(), hashes.SHA256())


def test_the_reader_is_the_one_that_the_address_names() -> None:
    reader = SimulatedReaders().open(Address.parse("sim:netkey3?profile=host_pps"), timeouts=Timeouts())
    try:
        assert (reader.name, reader.serial) == ("USB SmartCard Reader", "SIM-NETKEY3")
    finally:
        reader.close()


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError) as caught:
        SimulatedReaders().open(Address.parse("sim:?profile=nonsense"), timeouts=Timeouts())

    assert "ext_apdu" in str(caught.value.remedy)
