"""Rules for certificates: any text is a rule or a ValueError, and no rule but ``any`` lets in by chance."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.usbip.access import AccessRule, RuleKind
from demail_hw_drivers.usbip_server_access import ClientCertificate

WORDS = st.sampled_from([kind.value for kind in RuleKind])


@given(st.one_of(st.text(), st.builds("{}:{}".format, WORDS, st.text())), st.binary(max_size=64))
def test_any_text(text: str, encoded: bytes) -> None:
    with contextlib.suppress(ValueError):
        rule = AccessRule.parse(text)
        assert rule.value or rule.kind is RuleKind.ANY
        assert rule.fits(ClientCertificate(encoded)) is (rule.kind is RuleKind.ANY)


@given(st.binary(max_size=64))
def test_a_fingerprint_lets_in_its_certificate(encoded: bytes) -> None:
    certificate = ClientCertificate(encoded)
    assert AccessRule.parse(f"sha256:{certificate.fingerprint}").fits(certificate)
