"""Run by test_tls_life: a process that ends with contexts, connections and threads alive, many times over.

Arguments: how often, the PEM file of a certificate with its key, the PEM file of its issuer. Prints one exit code
a line.
"""

import ctypes
import os
import ssl
import sys
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from demail_hw.identity import Identity, KeyRole
from demail_hw.tls import client_context
from demail_hw.tls.openssl.context_pointer import ssl_ctx_of
from demail_hw.tls.openssl.library import OpenSsl

TIMES, CERTIFICATE_FILE, ISSUER_FILE = sys.argv[1:]


def become_a_child(times):
    """Return in every child; each ends with all that the interpreter and OpenSSL do at their ends."""
    for _ in range(times):
        child = os.fork()
        if child == 0:
            return
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    os._exit(0)


def client(pem, private_key):
    identity = Identity(KeyRole.AUTHENTICATION, "key", private_key, x509.load_pem_x509_certificate(pem))
    return client_context(identity, cafile=ISSUER_FILE)


def server():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE_FILE)
    context.load_verify_locations(ISSUER_FILE)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def shake_hands(client_side, server_side):
    c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
    near = client_side.wrap_bio(c_in, c_out, server_hostname="localhost")
    far = server_side.wrap_bio(s_in, s_out, server_side=True)
    pending = [near, far]
    while pending:
        for end in tuple(pending):
            try:
                end.do_handshake()
                pending.remove(end)
            except ssl.SSLWantReadError:
                pass
            finally:
                s_in.write(c_out.read())
                c_in.write(s_out.read())
    return near


def free_after_the_interpreter(context):
    """Its SSL_CTX and its key go in an exit handler of C, as if another library had held them."""
    library = OpenSsl.find()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
    register = ctypes.CDLL(None).__cxa_atexit
    register.argtypes = (ctypes.c_void_p,) * 3
    free = ctypes.cast(library.functions.SSL_CTX_free, ctypes.c_void_p)
    assert register(free, ssl_ctx_of(context, library), None) == 0


PEM = Path(CERTIFICATE_FILE).read_bytes()
KEY = load_pem_private_key(PEM, None)
become_a_child(int(TIMES))
gateway = server()
in_use = client(PEM, KEY)
connection = shake_hands(in_use, gateway)
circle = client(PEM, KEY)
circle.itself = circle
free_after_the_interpreter(client(PEM, KEY))
half_done = client(PEM, KEY).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
threading.Thread(target=shake_hands, args=(in_use, gateway)).start()
