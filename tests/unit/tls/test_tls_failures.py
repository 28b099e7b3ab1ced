"""What a key raises comes out as the cause of the SSLError, and harms nothing else."""

import ssl
import threading

import pytest

from demail_hw.errors import CardRemoved, KeyNotFound
from demail_hw.tls import client_context
from demail_hw.tls.openssl.attach import attached_key
from demail_hw.tls.openssl.failures import Failures

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def run_until_error(shake_hands, context, server):
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(context, server)
    return caught.value


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_the_keys_exception_is_the_cause(root, card_key, ca_file, make_server, shake_hands, version):
    card_key.failure = CardRemoved("The card was taken out.")
    context = client_context(root.identity(card_key), cafile=ca_file)
    error = run_until_error(shake_hands, context, make_server(version=version))
    assert error.__cause__ is card_key.failure
    assert len(card_key.calls) == 1


def test_a_failing_key_leaves_the_context_usable(root, card_key, ca_file, gateway, shake_hands):
    context = client_context(root.identity(card_key), cafile=ca_file)
    for _ in range(3):
        card_key.failure = CardRemoved("The card was taken out.")
        run_until_error(shake_hands, context, gateway)
        card_key.failure = None
        shake_hands(context, gateway)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_stays_an_interrupt(root, card_key, ca_file, gateway, shake_hands, interrupt):
    card_key.failure = interrupt
    context = client_context(root.identity(card_key), cafile=ca_file)
    with pytest.raises(type(interrupt)) as caught:
        shake_hands(context, gateway)
    assert caught.value is interrupt


def test_an_interrupt_that_stopped_nothing_is_not_lost(root, rsa_key, card_key, ca_file, make_server, begin):
    """As at the entry of a callback whose failure OpenSSL does not mind."""
    context = client_context(root.identity(card_key), cafile=ca_file)

    def sign(data, padding, algorithm):
        attached_key(context).failures.keep(KeyboardInterrupt())
        return rsa_key.sign(data, padding, algorithm)

    card_key.sign = sign
    ends = begin(context, make_server(version=TLS13))
    with pytest.raises(KeyboardInterrupt):
        ends.run()
    assert ends.client.version() == "TLSv1.3"


def test_an_old_failure_is_not_blamed(root, card_key, ca_file, gateway, begin):
    context = client_context(root.identity(card_key), cafile=ca_file)
    attached_key(context).failures.keep(CardRemoved("long ago"))
    ends = begin(context, gateway)
    with pytest.raises(ssl.SSLWantReadError) as caught:
        ends.client.do_handshake()
    assert caught.value.__cause__ is None
    ends.run()


def test_another_failure_has_no_cause(root, card_key, ca_file, make_server, shake_hands):
    context = client_context(root.identity(card_key), cafile=ca_file)
    context.maximum_version = TLS12
    error = run_until_error(shake_hands, context, make_server(version=TLS13))
    assert error.__cause__ is None


def test_too_long_a_signature_is_not_copied(root, card_key, ca_file, gateway, shake_hands):
    card_key.sign = lambda data, padding, algorithm: b"\0" * 1000
    context = client_context(root.identity(card_key), cafile=ca_file)
    assert isinstance(run_until_error(shake_hands, context, gateway).__cause__, ValueError)


def test_a_key_that_is_gone(root, card_key, ca_file, gateway, shake_hands):
    context = client_context(root.identity(card_key), cafile=ca_file)
    attached_key(context).key = None
    assert isinstance(run_until_error(shake_hands, context, gateway).__cause__, KeyNotFound)


def test_later_authentication_names_the_cause_too(root, card_key, ca_file, make_server, begin):
    """TLS 1.3 post-handshake authentication: the key is used while the client reads."""
    context = client_context(root.identity(card_key), cafile=ca_file)
    context.post_handshake_auth = True
    server = make_server(version=TLS13)
    server.post_handshake_auth = True
    ends = begin(context, server).run()
    assert card_key.calls == []
    card_key.failure = CardRemoved("The card was taken out.")
    ends.server._sslobj.verify_client_post_handshake()
    ends.server.write(b"who are you?")
    ends.pump()
    with pytest.raises(ssl.SSLError) as caught:
        ends.client.read()
    assert caught.value.__cause__ is card_key.failure


def test_guard_keeps_the_first_exception_of_its_thread():
    failures = Failures()
    errors = [ValueError("first"), KeyboardInterrupt()]

    def fail(number):
        raise errors[number]

    guarded = failures.guard(fail)
    assert [guarded(0), guarded(1)] == [0, 0]
    seen = []
    thread = threading.Thread(target=lambda: seen.append(failures.take()))
    thread.start()
    thread.join()
    assert seen == [None]
    assert failures.take() is errors[0]
    assert failures.take() is None
