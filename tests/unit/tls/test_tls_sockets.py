"""Real sockets on one context: threads, and the causes of errors through wrap_socket."""

import contextlib
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from demail_hw.errors import CardRemoved
from demail_hw.tls import client_context
from demail_hw.tls.sockets import KeySslSocket

THREADS, HANDSHAKES = 8, 10


@contextlib.contextmanager
def serving(context):
    """The other end of a socket pair, served in a thread: it echoes one message."""
    near, far = socket.socketpair()

    def serve():
        with contextlib.suppress(OSError), context.wrap_socket(far, server_side=True) as tls:
            tls.sendall(tls.recv(100))
            tls.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield near
    finally:
        near.close()
        thread.join()
        far.close()


def talk(context, server):
    with serving(server) as near, context.wrap_socket(near, server_hostname="localhost") as tls:
        tls.sendall(b"ping")
        assert tls.recv(100) == b"ping"
        return type(tls)


def test_a_conversation(root, card_key, ca_file, gateway):
    context = client_context(root.identity(card_key), cafile=ca_file)
    assert talk(context, gateway) is KeySslSocket
    assert len(card_key.calls) == 1


def test_the_cause_through_wrap_socket(root, card_key, ca_file, gateway):
    card_key.failure = CardRemoved("The card was taken out.")
    context = client_context(root.identity(card_key), cafile=ca_file)
    with pytest.raises(ssl.SSLError) as caught:
        talk(context, gateway)
    assert caught.value.__cause__ is card_key.failure


def test_many_threads_on_one_context(root, card_key, ca_file, gateway):
    context = client_context(root.identity(card_key), cafile=ca_file)
    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(lambda _: talk(context, gateway), range(THREADS * HANDSHAKES)))
    assert len(done) == len(card_key.calls) == THREADS * HANDSHAKES


def test_each_thread_finds_its_own_failure(root, rsa_key, card_key, ca_file, gateway):
    """Half of the signatures fail, each with the name of its thread."""
    lock, count = threading.Lock(), iter(range(1000))

    def sign(data, padding, algorithm):
        with lock:
            number = next(count)
        if number % 2:
            raise CardRemoved(threading.current_thread().name)
        return rsa_key.sign(data, padding, algorithm)

    card_key.sign = sign
    context = client_context(root.identity(card_key), cafile=ca_file)

    def attempt(_):
        try:
            talk(context, gateway)
        except ssl.SSLError as error:
            return error.__cause__.message == threading.current_thread().name
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(attempt, range(4 * THREADS)))
    assert results.count(True) == results.count(None) == 2 * THREADS
