"""How many TLS handshakes a second does a card's key do, against the same key in a file?

The card is simulated, in process, and takes only the time of its RSA operation. Server: the simulated gateway, in
another process. Both contexts are limited to the De-Mail profile.
"""

import contextlib
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization

from benchmarks.provider import open_keys
from benchmarks.report import Target, table
from demail_hw import tls
from demail_hw.cli.simulator_process import running_simulator
from demail_hw.identity import Identity, KeyRole
from demail_hw_simulators.ca import write_trust
from demail_hw_simulators.card.personalities import load_card_key, netkey3
from demail_hw_simulators.sim_reader import SimulatedReader

__all__ = ["Handshakes", "measure", "report", "targets"]

_VERSIONS = ("1.2", "1.3")
_RUNS = 7
_BATCHES = 10
_BATCH = 10
_HANDSHAKES = _BATCHES * _BATCH
_KEY_FILE = "nks-82"
"""The card's authentication key, which is published."""

_TARGETS = {False: 0.93, True: 0.90}
"""By whether Python is 3.13 or newer."""

_Endpoint: TypeAlias = tuple[str, int]


class Handshakes(NamedTuple):
    """Handshakes a second, a figure a run; in a run, batches of both were taken in turn."""

    version: str
    card: list[float]
    file: list[float]

    @property
    def ratio(self) -> float:
        """Of the two rates, in the median run."""
        return statistics.median(card / file for card, file in zip(self.card, self.file, strict=True))


def measure() -> list[Handshakes]:
    """For each version of TLS."""
    with (
        tempfile.TemporaryDirectory(prefix="demail-hw-bench-") as folder,
        open_keys(SimulatedReader(netkey3())) as provider,
    ):
        write_trust(folder)
        identity = provider.identity(KeyRole.AUTHENTICATION)
        authority = Path(folder) / "gateway-ca.pem"
        card = tls.client_context(identity, cafile=authority, profile=tls.DEMAIL)
        file = _file_context(identity, authority, Path(folder) / "key.pem")
        return [_measure(version, card, file) for version in _VERSIONS]


def _file_context(identity: Identity, authority: Path, path: Path) -> ssl.SSLContext:
    """The standard library's, with the same key, certificates and settings."""
    context = ssl.create_default_context(cafile=authority)
    tls.DEMAIL.apply(context)
    key = load_card_key(_KEY_FILE).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = [certificate for certificate in identity.chain if certificate.issuer != certificate.subject]
    certificates = [each.public_bytes(serialization.Encoding.PEM) for each in (identity.certificate, *chain)]
    path.write_bytes(b"".join((key, *certificates)))
    context.load_cert_chain(path)
    return context


def _measure(version: str, card: ssl.SSLContext, file: ssl.SSLContext) -> Handshakes:
    measured = Handshakes(version, [], [])
    with _gateway(version) as endpoint:
        _run(endpoint, card, file)  # to warm up
        for _ in range(_RUNS):
            card_seconds, file_seconds = _run(endpoint, card, file)
            measured.card.append(_HANDSHAKES / card_seconds)
            measured.file.append(_HANDSHAKES / file_seconds)
    return measured


def _run(endpoint: _Endpoint, *contexts: ssl.SSLContext) -> list[float]:
    """The seconds that each context took for its handshakes."""
    seconds = [0.0] * len(contexts)
    for _ in range(_BATCHES):
        for index, context in enumerate(contexts):
            began = time.perf_counter()
            for _ in range(_BATCH):
                _handshake(context, endpoint)
            seconds[index] += time.perf_counter() - began
    return seconds


@contextlib.contextmanager
def _gateway(version: str) -> Iterator[_Endpoint]:
    with running_simulator("gateway", "--listen", "127.0.0.1:0", "--tls", version) as address:
        url = urlsplit(address)
        yield url.hostname or "", url.port or 0


def _handshake(context: ssl.SSLContext, endpoint: _Endpoint) -> None:
    with (
        socket.create_connection(endpoint) as connection,
        context.wrap_socket(connection, server_hostname="localhost"),
    ):
        pass


def report(measured: Sequence[Handshakes]) -> str:
    """Rates and their ratio: medians."""
    rows = [
        (f"TLS {each.version}", *(f"{statistics.median(rates):.0f}" for rates in each[1:]), f"{each.ratio:.3f}")
        for each in measured
    ]
    title = f"TLS handshakes a second, De-Mail profile (median of {_RUNS} runs of {_HANDSHAKES}, interleaved)"
    return table(title, ("version", "card key", "file key", "ratio"), rows)


def targets(measured: Sequence[Handshakes]) -> list[Target]:
    """What the ratio was to be."""
    wanted = _TARGETS[sys.version_info >= (3, 13)]
    return [
        Target(f"TLS {each.version}: card key / file key", each.ratio, wanted, "", at_least=True) for each in measured
    ]
