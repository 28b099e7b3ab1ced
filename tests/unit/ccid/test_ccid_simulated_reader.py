"""The simulated uTrust 2700 F as a USB device, transfer by transfer."""

import dataclasses

import pytest

from demail_hw.interfaces import Transfer, TransferResult
from demail_hw.usb.descriptors import DeviceDescriptor, decode_string
from demail_hw_simulators.ccid_device import UTRUST_2700F, SimulatedUsbReader

ATR = bytes.fromhex("3bff9600008131fe4380318065b0850300ef120fff82900019")
SET_CONFIGURATION = bytes.fromhex("0009010000000000")
STALL = TransferResult(-32)
DONE = TransferResult(0)


class EchoCard:
    """Answers a command with what it is told to, and knows whether it has power."""

    def __init__(self, response: bytes = b"\x90\0") -> None:
        self.response = response
        self.powered = False
        self.commands: list[bytes] = []

    def power_on(self) -> bytes:
        self.powered = True
        return ATR

    def power_off(self) -> None:
        self.powered = False

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.response


class Host:
    """A host's controller: what it submits, and what came of it."""

    def __init__(self, device: SimulatedUsbReader) -> None:
        self.device = device

    def submit(self, endpoint: int, length: int = 0, *, setup: str = "", data: bytes = b"") -> list[TransferResult]:
        results: list[TransferResult] = []
        transfer = Transfer(endpoint, length, setup=bytes.fromhex(setup), data=data)
        self.device.submit(transfer, results.append)
        return results

    def control(self, setup: str) -> TransferResult:
        (result,) = self.submit(0x80 if int(setup[:2], 16) & 0x80 else 0, 255, setup=setup)
        return result

    def command(self, text: str, length: int = 1088) -> TransferResult:
        assert self.submit(0x01, data=bytes.fromhex(text)) == [DONE]
        (result,) = self.submit(0x82, length)
        return result


def powered(card: EchoCard, **changes: bool) -> Host:
    host = Host(SimulatedUsbReader(card, profile=dataclasses.replace(UTRUST_2700F, **changes)))
    assert host.command("62000000000000000000").data[10:] == ATR
    return host


# --- Control pipe ------------------------------------------------------------------------------------------------


def test_device_descriptor_is_that_of_the_dump() -> None:
    device = DeviceDescriptor.decode(SimulatedUsbReader(None).device_descriptor)
    assert (device.vendor_id, device.product_id, device.device_version) == (0x04E6, 0x5710, 0x0003)


def test_configuration_has_one_interface_with_three_endpoints() -> None:
    assert SimulatedUsbReader(None).configuration_descriptor.hex() == (
        "09025d00010100" + "8032" + "09040000030b000004"
        "36211001000703000000c0120000e02e00000067320000e74c060000fe0000000000000000000000ba0404000a040000ffff00000001"
        "07050102400000" + "07058202400000" + "07058303100010"
    )


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (1, "Identive"),
        (2, "CLOUD 2700 F Smart Card Reader"),
        (3, "53692013000000"),
        (4, "CCID Interface"),
    ],
)
def test_strings(index: int, text: str) -> None:
    host = Host(SimulatedUsbReader(None))
    assert decode_string(host.control(f"8006{index:02x}030904ff00").data) == text


def test_serial_number_is_chosen_by_the_caller() -> None:
    assert SimulatedUsbReader(None, serial="53692013000001").serial == "53692013000001"


@pytest.mark.parametrize(
    "setup",
    [
        "a102000000000400",  # GET_CLOCK_FREQUENCIES
        "a103000000000400",  # GET_DATA_RATES
        "a101000000000000",  # ABORT in the wrong direction
        "2001000000000000",  # ABORT to the device
        "2104000000000000",  # no class request at all
        "c001000000000400",  # a vendor's
        "8006000600000a00",  # device qualifier, at full speed
    ],
)
def test_request_that_the_reader_does_not_know_stalls(setup: str) -> None:
    assert Host(SimulatedUsbReader(None)).control(setup) == STALL


def test_abort_request_and_message_end_a_command() -> None:
    host = powered(EchoCard())
    assert host.control("2101000500000000") == DONE
    assert host.command("72000000000005000000").data.hex() == "81000000000005000000"


def test_abort_message_and_then_the_request() -> None:
    host = powered(EchoCard())
    host.submit(0x01, data=bytes.fromhex("72000000000005000000"))
    answers = host.submit(0x82, 64)
    assert not answers
    host.control("2101000500000000")
    assert answers == [TransferResult(0, bytes.fromhex("81000000000005000000"))]


def test_halted_endpoint_stalls_until_it_is_cleared() -> None:
    host = Host(SimulatedUsbReader(None))
    host.control("0203000082000000")
    assert host.submit(0x82, 64) == [STALL]
    host.control("0201000082000000")
    assert host.submit(0x82, 64) == []


# --- Bulk pipes --------------------------------------------------------------------------------------------------


def test_answer_waits_for_its_transfer_and_a_transfer_for_its_answer() -> None:
    host = powered(EchoCard())
    host.submit(0x01, data=bytes.fromhex("65000000000001000000"))
    assert host.submit(0x82, 64) == [TransferResult(0, bytes.fromhex("81000000000001000000"))]
    early = host.submit(0x82, 64)
    assert not early
    host.submit(0x01, data=bytes.fromhex("65000000000002000000"))
    assert early == [TransferResult(0, bytes.fromhex("81000000000002000000"))]


def test_host_that_never_reads_is_stalled_and_may_go_on_when_it_has_read() -> None:
    host = powered(EchoCard())
    results = [host.submit(0x01, data=bytes.fromhex("65000000000001000000")) for _ in range(18)]
    assert results == [[DONE]] * 16 + [[STALL]] * 2
    answers = [host.submit(0x82, 64) for _ in range(17)]
    assert answers == [[TransferResult(0, bytes.fromhex("81000000000001000000"))]] * 16 + [[]]
    host.control("0201000001000000")
    assert host.submit(0x01, data=bytes.fromhex("65000000000002000000")) == [DONE]
    assert answers[-1] == [TransferResult(0, bytes.fromhex("81000000000002000000"))]


def read_all(host: Host, lengths: list[int]) -> list[bytes]:
    host.submit(0x01, data=bytes.fromhex("6f04000000000100000000a40400"))
    results = [result for length in lengths for result in host.submit(0x82, length)]
    assert all(status == 0 for status, _ in results)
    return [data for _, data in results]


@pytest.mark.parametrize(
    ("size", "lengths", "pieces"),
    [
        (258, [1088], [268]),
        (258, [64, 256], [64, 204]),
        (258, [64, 64, 64, 64, 64], [64, 64, 64, 64, 12]),
        # A message of whole packets is ended by one of no length, which is noise if the transfer was full.
        (118, [1088], [128]),
        (118, [128, 64], [128, 0]),
        (54, [64, 64], [64, 0]),
    ],
)
def test_message_meets_transfers_in_packets(size: int, lengths: list[int], pieces: list[int]) -> None:
    host = powered(EchoCard(bytes(size)))
    assert [len(data) for data in read_all(host, lengths)] == pieces


def test_firmware_without_zero_length_packets_leaves_a_transfer_hanging() -> None:
    host = powered(EchoCard(bytes(118)), zero_length_packets=False)
    assert read_all(host, [1088]) == []
    host = powered(EchoCard(bytes(118)), zero_length_packets=False)
    assert [len(data) for data in read_all(host, [64, 64])] == [64, 64]


def test_packet_that_does_not_fit_is_a_babble() -> None:
    host = powered(EchoCard(bytes(258)))
    host.submit(0x01, data=bytes.fromhex("6f04000000000100000000a40400"))
    assert host.submit(0x82, 100) == [TransferResult(-75)]


def test_cancelled_transfer_does_not_complete_and_takes_no_answer() -> None:
    host = powered(EchoCard())
    results: list[TransferResult] = []
    transfers = [Transfer(0x82, 64), Transfer(0x82, 64)]
    for transfer in transfers:
        host.device.submit(transfer, results.append)
    assert host.device.cancel(transfers[0])
    assert not host.device.cancel(transfers[0])
    host.submit(0x01, data=bytes.fromhex("65000000000001000000"))
    assert results == [TransferResult(0, bytes.fromhex("81000000000001000000"))]
    assert not host.device.cancel(transfers[1])


def test_cancelled_transfer_takes_what_it_had_received_with_it() -> None:
    host = powered(EchoCard(bytes(118)), zero_length_packets=False)
    host.submit(0x01, data=bytes.fromhex("6f04000000000100000000a40400"))
    hanging = Transfer(0x82, 1088)
    host.device.submit(hanging, lambda _: pytest.fail("it must not complete"))
    assert host.device.cancel(hanging)
    assert host.command("65000000000002000000").data.hex() == "81000000000002000000"


# --- Card and interrupt pipe -------------------------------------------------------------------------------------


def test_first_news_is_there_from_the_beginning_and_after_every_configuration() -> None:
    for card, news in ((EchoCard(), "5003"), (None, "5002")):
        host = Host(SimulatedUsbReader(card))
        assert host.submit(0x83, 16) == [TransferResult(0, bytes.fromhex(news))]
        assert host.submit(0x83, 16) == []
        host = Host(SimulatedUsbReader(card))
        host.control(SET_CONFIGURATION.hex())
        assert host.submit(0x83, 16) == [TransferResult(0, bytes.fromhex(news))]


def test_card_comes_and_goes() -> None:
    device = SimulatedUsbReader(None)
    host = Host(device)
    host.submit(0x83, 16)
    news = host.submit(0x83, 16)
    device.insert(EchoCard())
    assert news == [TransferResult(0, bytes.fromhex("5003"))]
    assert host.command("65000000000000000000").data.hex() == "81000000000000010000"
    device.remove()
    assert host.submit(0x83, 16) == [TransferResult(0, bytes.fromhex("5002"))]
    assert host.command("65000000000001000000").data.hex() == "81000000000001020000"


def test_only_the_newest_news_counts() -> None:
    device = SimulatedUsbReader(None)
    device.insert(EchoCard())
    device.remove()
    host = Host(device)
    assert host.submit(0x83, 16) == [TransferResult(0, bytes.fromhex("5002"))]
    assert host.submit(0x83, 16) == []


def test_card_loses_its_power_when_it_leaves_or_is_replaced() -> None:
    first, second = EchoCard(), EchoCard()
    host = powered(first)
    assert host.device.powered
    host.device.insert(second)
    assert not first.powered
    assert not host.device.powered
    assert host.command("62000000000001000000").data[10:] == ATR
    assert second.powered
    host.device.remove()
    host.device.remove()
    assert not second.powered


def test_reset_takes_the_power_and_drops_what_is_pending() -> None:
    card = EchoCard()
    host = powered(card)
    host.submit(0x83, 16)
    pending = host.submit(0x82, 64)
    host.device.reset()
    assert not card.powered
    assert not pending
    assert host.submit(0x83, 16) == [TransferResult(0, bytes.fromhex("5003"))]
    assert host.command("65000000000000000000").data.hex() == "81000000000000010000"


def test_mute_card_is_icc_mute() -> None:
    host = powered(EchoCard(b""))
    assert host.command("6f04000000000100000000a40400").data.hex() == "8000000000000140fe00"


# --- Escape commands (manuals of the family) ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("1e", "0003030300000000011c" + "53692013000000".encode("utf-16-le").hex()),
        ("8000", "00000140"),
        ("810001", "0000035d"),
        ("820001", "00000018"),
        ("b2ff", "00"),
        ("b201", "01"),
        ("ff7004e60100", "000000009000"),
    ],
)
def test_escape(command: str, answer: str) -> None:
    host = Host(SimulatedUsbReader(EchoCard()))
    message = f"6b{len(command) // 2:02x}0000000009000000{command}"
    assert host.command(message).data.hex() == f"83{len(answer) // 2:02x}0000000009010000{answer}"


def test_escape_sets_what_it_gets() -> None:
    host = Host(SimulatedUsbReader(None))
    assert host.command("6b06000000000000000080010000017f").data[10:].hex() == "0000017f"
    assert host.command("6b0200000000010000008000").data[10:].hex() == "0000017f"
    assert host.command("6b020000000002000000b201").data[10:].hex() == "01"
    assert host.command("6b020000000003000000b2ff").data[10:].hex() == "01"


def test_insertions_are_counted() -> None:
    device = SimulatedUsbReader(None)
    device.insert(EchoCard())
    device.insert(EchoCard())
    assert Host(device).command("6b060000000000000000ff7004e60100").data[10:].hex() == "000000029000"


@pytest.mark.parametrize("command", ["", "00", "80", "8002", "80010000", "b203", "b2", "ff7004e60101"])
def test_unknown_escape_is_not_supported(command: str) -> None:
    host = Host(SimulatedUsbReader(None))
    message = f"6b{len(command) // 2:02x}0000000000000000{command}"
    assert host.command(message).data.hex() == "83000000000000420000"
