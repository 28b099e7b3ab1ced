"""Ctrl-C while libssl computes: the next Python function that is entered is a callback, and C cannot unwind."""

import ctypes
import functools
import operator
import signal
import ssl
import sys

import pytest

from demail_hw.tls import client_context
from demail_hw.tls.openssl.context_pointer import ssl_ctx_of
from demail_hw.tls.openssl.dispatch import DispatchTable
from demail_hw.tls.openssl.failures import Failures
from demail_hw.tls.openssl.library import OpenSsl
from demail_hw.tls.openssl.structures import Dispatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs raise(3) of this process's C library")


class Interrupt(BaseException):
    """Like KeyboardInterrupt, and not pytest's."""


@pytest.fixture
def send_signal():
    """Send this process a signal that raises :class:`Interrupt`, without any Python code running."""

    def handle(number, frame):
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, handle)
    yield functools.partial(ctypes.PyDLL(None)["raise"], int(signal.SIGUSR1))
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def signal_on_every_step(send_signal):
    """``signal_on_every_step(context)``: each step of its handshakes sends the signal."""
    openssl = OpenSsl.find()
    thunk = ctypes.CFUNCTYPE(ctypes.c_int)(send_signal)
    used = []

    def begin(context):
        used.append(context)
        openssl.functions.SSL_CTX_set_info_callback(ctypes.c_void_p(ssl_ctx_of(context, openssl)), thunk)

    yield begin
    for context in used:
        openssl.functions.SSL_CTX_set_info_callback(ctypes.c_void_p(ssl_ctx_of(context, openssl)), None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("key_name", ["card_key", "ec_keys"])
def test_an_interrupt_before_a_callback_is_not_lost(
    root, request, key_name, ca_file, make_server, begin, signal_on_every_step, version
):
    key = request.getfixturevalue(key_name)
    key = key["secp256r1"] if key_name == "ec_keys" else key
    context = client_context(root.identity(key), cafile=ca_file)
    ends = begin(context, make_server(version=version))
    for end in (ends.client, ends.server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
        ends.pump()
    hook = sys.unraisablehook
    signal_on_every_step(context)
    with pytest.raises(Interrupt):
        ends.client.do_handshake()
    assert sys.unraisablehook is hook


def test_a_constant_function_is_not_interrupted(send_signal):
    """C follows the address that it returns."""
    table = DispatchTable(Failures(), {}, constants={1: 0x1234567890})
    function = ctypes.CFUNCTYPE(ctypes.c_void_p)(Dispatch.from_address(table.address).function)
    results = []
    with pytest.raises(Interrupt):
        results.extend(map(operator.call, [send_signal, function]))
    assert results == [0, 0x1234567890]


def test_what_is_not_ours_goes_to_the_hook_before(monkeypatch):
    """Somebody else's callback fails in the meantime."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    def fail():
        raise ValueError("not ours")

    failures = Failures()
    with failures.catching():
        ctypes.CFUNCTYPE(None)(fail)()
    assert [str(unraisable.exc_value) for unraisable in seen] == ["not ours"]
    assert failures.take() is None
