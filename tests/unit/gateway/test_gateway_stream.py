"""TCP to a gateway: which of its addresses is taken."""

import socket
import time

import pytest

from demail_hw.gateway.stream import open_connection

NO_SUCH_FAMILY = socket.AF_PACKET
STREAM = socket.SOCK_STREAM


def test_an_address_that_this_machine_has_no_socket_for_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()
        addresses = [(family, STREAM, 0, "", here) for family in (NO_SUCH_FAMILY, socket.AF_INET)]
        with open_connection(addresses, deadline=time.monotonic() + 10) as connection:
            assert connection.getpeername() == here


def test_the_error_is_that_of_the_last_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    addresses = [(family, STREAM, 0, "", nobody) for family in (NO_SUCH_FAMILY, socket.AF_INET)]
    with pytest.raises(ConnectionRefusedError):
        open_connection(addresses, deadline=time.monotonic() + 10)
    with pytest.raises(TimeoutError):
        open_connection([], deadline=time.monotonic() + 10)
