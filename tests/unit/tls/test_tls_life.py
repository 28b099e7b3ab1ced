"""How long keys and contexts live, and that a process ends in order with either of them alive."""

import gc
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from demail_hw.tls import client_context
from demail_hw.tls.openssl.attach import attached_key
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.openssl.provider import SHARED_PROVIDER, OpenSslKeyProvider

EXITS = 20
CONTEXTS = 2000
ALLOWED_GROWTH = 1 << 20
EXIT_SCRIPT = Path(__file__).with_name("exit_with_contexts.py")


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and __cxa_atexit")
def test_a_process_ends_in_order_with_contexts_alive(ca_file, server_file):
    command = [sys.executable, "-W", "error", EXIT_SCRIPT, str(EXITS), server_file, ca_file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["0"] * EXITS


def test_a_provider_is_never_given_back():
    """OpenSSL may call its functions to the end of the process."""
    gone = weakref.ref(OpenSslKeyProvider(OpenSsl.find()))
    gc.collect()
    assert gone() is not None


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_many_contexts_without_growth(root, make_issuer, card_key, gateway, ca_file, shake_hands):
    between = make_issuer("between", above=root)
    identity = between.identity(card_key, (between.certificate,))
    data = ca_file.read_text()

    def make(count):
        for number in range(count):
            context = client_context(identity, cadata=data)
            if number % 100 == 0:
                shake_hands(context, gateway)
        del context
        gc.collect()
        return resident()

    before = make(CONTEXTS // 4)
    after = make(CONTEXTS)
    assert after - before < ALLOWED_GROWTH


def test_a_key_goes_with_its_context(root, card_key, ca_file, gateway, shake_hands):
    context = client_context(root.identity(card_key), cafile=ca_file)
    key_id = attached_key(context).key.key_id
    connection = shake_hands(context, gateway)
    gone = weakref.ref(attached_key(context).key)
    del context
    assert gone() is not None
    del connection
    gc.collect()
    assert gone() is None
    assert key_id not in SHARED_PROVIDER.get().registry._keys


def test_a_key_that_refers_to_its_context_goes_too(root, rsa_key, card_key, ca_file):
    key = type(card_key)(rsa_key)
    key.context = client_context(root.identity(key), cafile=ca_file)
    gone = weakref.ref(key)
    del key
    gc.collect()
    assert gone() is None
