"""OpenSC recognises the simulated NetKey 3 card, and finds on it what is there."""

import math
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3
from opensc import OpenSc
from pcscd import PrivatePcscd

pytestmark = pytest.mark.usefixtures("card")

SELECT, READ_BINARY, READ_RECORD = 0xA4, 0xB0, 0xB2
DUMP = {SELECT: 35, READ_RECORD: 20}
DUMP_READS = 12
"""What pkcs15-tool --dump was recorded to send, READ BINARY without those for the certificates themselves."""
CHUNK = 256
CERTIFICATES = ["45", "46", "47", "48", "49"]


@pytest.fixture
def card(pcscd: PrivatePcscd) -> SimulatedTcosCard:
    card = netkey3()
    pcscd.slot(card)
    return card


def test_name_atr_and_serial(opensc: OpenSc) -> None:
    assert opensc.good("opensc-tool", "--name") == "TCOS\n"
    assert opensc.good("opensc-tool", "--atr").startswith("3b:bf:96:00:81:31:fe:5d:00:64:04:11:03:01")
    assert "89 49 01 73 51 00 80 40 71 36" in opensc.good("opensc-tool", "--serial")


def test_it_walks_the_whole_file_system(opensc: OpenSc) -> None:
    listed = opensc.good("opensc-tool", "--list-files")
    found = set(re.findall(r"^ *3f00([0-9a-f]*)", listed, re.MULTILINE))
    netkey = {f"df02{name}" for name in ("c000", "c200", "c500", "4331", "43b1", "4371", "4531", "45b1", "5349")}
    assert found >= {"", "2f02", "5049", "df02", "df01", "df01c000", "df01c008", "df01c00e"} | netkey
    assert "ef structure: linear variable" in listed.lower() or "linear-variable" in listed.lower()


def test_explorer_lists_creates_and_deletes(opensc: OpenSc) -> None:
    said = opensc.explore(
        'verify CHV0 "123456"', "cd DF02", "create 1235 10", "cd ..", "cd DF02", "ls", "echo ----", "rm 1235", "ls"
    )
    before, _, after = said.partition("----")
    assert " 1235 " in before
    assert " 1235 " not in after.partition("FileID")[2]
    assert "failed" not in said


def test_explorer_makes_a_directory_and_writes_a_file_in_it(opensc: OpenSc) -> None:
    content = opensc.file("content", b"hello card")
    said = opensc.explore(
        'verify CHV0 "123456"',
        "cd DF02",
        "mkdir 1234 100",
        "cd 1234",
        "create 1236 10",
        f"put 1236 {content}",
        "cat 1236",
        "delete 1236",
        "cd ..",
        "delete 1234",
        "cd 1234",
    )
    assert "Total of 10 bytes written to 1236." in said
    assert "hello card" in said
    # Only the last line fails: the directory is gone.
    assert said.count("File not found") == 1
    assert "failed" not in said


def test_explorer_creates_nothing_without_a_pin(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    said = opensc.explore("cd DF02", "create 1235 10", "ls")
    assert "Security status not satisfied" in said
    assert " 1235 " not in said


def test_explorer_gets_random_bytes(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    opensc.explore("random 16")
    assert card.instructions[0x84] == 1


def test_dump(opensc: OpenSc, card: SimulatedTcosCard) -> None:
    dump = opensc.good("pkcs15-tool", "--dump")
    sent = dict(card.instructions)
    assert "PKCS#15 Card [NetKey V3 Card]" in dump
    assert "Serial number  : 8949017351008040713\n" in dump
    assert "Manufacturer ID: TeleSec GmbH" in dump
    assert re.findall(r"^PIN \[(.*)\]", dump, re.MULTILINE) == [
        "PIN",
        "PUK",
        "NetKey PIN2",
        "NetKey PIN1",
        "SigG PIN",
        "SigG PIN2",
    ]
    assert dump.count("Tries left     : 3") == 6
    keys = re.findall(r"Key ref        : (\d+)", dump)
    assert keys == ["128", "129", "130", "131", "132"]
    certificates = (opensc.good("pkcs15-tool", "--read-certificate", name).encode() for name in CERTIFICATES)
    reads = sum(math.ceil(len(der(certificate)) / CHUNK) for certificate in certificates)
    assert sent == {**DUMP, READ_BINARY: DUMP_READS + reads}


def der(certificate: bytes) -> bytes:
    return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)


def test_certificates_are_listed_by_id(opensc: OpenSc) -> None:
    listed = opensc.good("pkcs15-tool", "--list-certificates")
    assert re.findall(r"ID +: (\d+)", listed) == CERTIFICATES
    assert re.findall(r"Path +: (\w+)", listed) == ["df02c000", "df02c200", "df02c500", "df02c201", "df01c000"]


def test_pkcs11_slots(opensc: OpenSc) -> None:
    listed = opensc.good("pkcs11-tool", "--list-slots")
    labels = re.findall(r"token label +: (.*)", listed)
    assert labels == [
        "NetKey V3 Card",
        "NetKey V3 Card (NetKey PIN2)",
        "NetKey V3 Card (NetKey PIN1)",
        "NetKey V3 Card (SigG PIN)",
    ]


def test_pkcs11_mechanisms(opensc: OpenSc) -> None:
    listed = opensc.good("pkcs11-tool", "--list-mechanisms")
    assert "RSA-X-509, keySize={512,2048}, hw, decrypt, sign" in listed
    assert "RSA-PKCS-PSS, keySize={512,2048}, hw, sign" in listed


def test_pkcs11_shows_nothing_to_the_global_pin(opensc: OpenSc) -> None:
    listed = opensc.good("pkcs11-tool", "--list-objects", "--login", "--pin", "123456", "--slot-index", "0")
    assert "Object" not in listed


def test_nothing_is_left_in_the_home(opensc: OpenSc) -> None:
    opensc.good("pkcs15-tool", "--dump")
    opensc.good("pkcs11-tool", "--list-objects", "--slot-index", "1")
    assert [path.name for path in opensc.folder.rglob("*") if path.is_file()] == ["opensc.conf"]


@pytest.mark.parametrize(
    ("slot", "pin", "ids"), [("1", "222222", {"46", "47", "48"}), ("2", "111111", {"45"}), ("3", "654321", {"49"})]
)
def test_pkcs11_objects(opensc: OpenSc, slot: str, pin: str, ids: set[str]) -> None:
    listed = opensc.good("pkcs11-tool", "--list-objects", "--login", "--pin", pin, "--slot-index", slot)
    for kind in ("Private Key Object", "Certificate Object"):
        blocks = [block for block in re.split(r"\n(?=\S)", listed) if block.startswith(kind)]
        assert {found for block in blocks for found in re.findall(r"ID: +(\d+)", block)} == ids
