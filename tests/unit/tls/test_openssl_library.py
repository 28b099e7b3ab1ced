import _ctypes
import ctypes
import ssl
import sys
from types import ModuleType, SimpleNamespace

import pytest

from demail_hw.errors import Layer, TlsKeyUnsupported
from demail_hw.tls.openssl import context_pointer, library
from demail_hw.tls.openssl.context_pointer import ssl_ctx_of
from demail_hw.tls.openssl.library import OpenSsl


def module(file):
    made = ModuleType("_ssl")
    made.__file__ = file
    return made


def test_the_library_is_the_one_of_the_ssl_module():
    assert OpenSsl.find().functions.OpenSSL_version(0).decode() == ssl.OPENSSL_VERSION


def test_the_ways_out_are_named():
    with pytest.raises(TlsKeyUnsupported) as caught:
        OpenSsl.find(module(_ctypes.__file__))  # an extension module without OpenSSL, as a static _ssl looks
    error = caught.value
    assert "linked statically" in error.message
    for way in ("shared OpenSSL 3", "pkcs11-provider", "stunnel"):
        assert way in error.remedy
    assert error.layer is Layer.TLS


def test_a_static_ssl_is_refused_even_if_another_openssl_is_loaded():
    ctypes.CDLL(ssl._ssl.__file__, mode=ctypes.RTLD_GLOBAL)
    with pytest.raises(TlsKeyUnsupported, match="statically"):
        OpenSsl.find(module(_ctypes.__file__))


def test_a_module_that_cannot_be_opened(tmp_path):
    with pytest.raises(TlsKeyUnsupported):
        OpenSsl.find(module(str(tmp_path / "_ssl.so")))


def test_another_openssl_than_pythons_is_refused(monkeypatch):
    monkeypatch.setattr(ssl, "OPENSSL_VERSION", "LibreSSL 4.1.0")
    with pytest.raises(TlsKeyUnsupported, match=r"LibreSSL 4\.1\.0"):
        OpenSsl.find()


def test_an_old_openssl_is_refused(monkeypatch):
    monkeypatch.setattr(library, "_FIRST_WITH_PROVIDERS", 0xF0000000)
    with pytest.raises(TlsKeyUnsupported, match="older"):
        OpenSsl.find()


def test_only_cpython(monkeypatch):
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    with pytest.raises(TlsKeyUnsupported, match="pypy"):
        OpenSsl.find()


def test_the_reason_is_taken_once():
    openssl = OpenSsl.find()
    assert openssl.functions.EVP_PKEY_CTX_new_from_name(None, b"no such algorithm", None) is None
    assert "unsupported" in openssl.take_reason()
    assert openssl.take_reason() == "no reason was given"


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER])
@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_the_pointer_follows_its_context(protocol, mode):
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = mode
    openssl = OpenSsl.find()
    before = context.options
    pointer = ssl_ctx_of(context, openssl)
    assert context.options == before
    context.options |= ssl.OP_NO_RENEGOTIATION
    assert openssl.functions.SSL_CTX_get_options(pointer) == context.options


def test_the_pointer_of_another_context_is_refused(monkeypatch):
    """As if CPython had moved the field: what is found there does not follow the context."""
    openssl, other = OpenSsl.find(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pointer = ssl_ctx_of(other, openssl)
    monkeypatch.setattr(context_pointer, "_read_pointer", lambda context: pointer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    before = context.options
    with pytest.raises(TlsKeyUnsupported, match="SSL_CTX"):
        ssl_ctx_of(context, openssl)
    assert context.options == before


@pytest.mark.parametrize("found", [None, 0])
def test_no_pointer(monkeypatch, found):
    monkeypatch.setattr(context_pointer, "_read_pointer", lambda context: found)
    with pytest.raises(TlsKeyUnsupported):
        ssl_ctx_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), OpenSsl.find())


def test_a_context_object_too_small_is_not_read(monkeypatch):
    monkeypatch.setattr(context_pointer, "_HEADER", ssl._ssl._SSLContext.__basicsize__)
    with pytest.raises(TlsKeyUnsupported):
        ssl_ctx_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), OpenSsl.find())
