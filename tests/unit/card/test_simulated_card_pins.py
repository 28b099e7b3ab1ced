"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER, and EF.PWDD beside them (tcos.md 3.5, 3.6, 4.3)."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from demail_hw.iso7816.apdu import ResponseApdu
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.personalities import netkey3, netkey3_fresh

Send: TypeAlias = Callable[[str], ResponseApdu]

SELECT_NKS = "00A4040C 07 D2760000030102"
SELECT_SIGG = "00A4040C 06 D27600006601"


def pin_command(ins: str, p1: int, reference: int, *secrets: str | bytes) -> str:
    data = b"".join(secret.encode() if isinstance(secret, str) else secret for secret in secrets)
    return f"00{ins}{p1:02X}{reference:02X}" + (f"{len(data):02X}{data.hex()}" if data else "")


def verify(reference: int, *secret: str) -> str:
    return pin_command("20", 0, reference, *secret)


def change(reference: int, *secrets: str | bytes, p1: int = 0) -> str:
    return pin_command("24", p1, reference, *secrets)


def reset(reference: int, *secrets: str, p1: int = 0) -> str:
    return pin_command("2C", p1, reference, *secrets)


def block(send: Send, reference: int) -> None:
    for left in (2, 1, 0):
        assert send(verify(reference, "999999")).status == 0x63C0 + left


@pytest.mark.parametrize(
    ("application", "reference", "pin"),
    [
        ("00A4000C", 0x00, "123456"),
        ("00A4000C", 0x01, "12345678"),
        ("00A4000C", 0x02, "333333"),
        (SELECT_NKS, 0x00, "123456"),
        (SELECT_NKS, 0x81, "111111"),
        (SELECT_NKS, 0x83, "222222"),
        (SELECT_SIGG, 0x81, "654321"),
        (SELECT_SIGG, 0x83, "87654321"),
    ],
)
def test_every_pin(send: Send, application: str, reference: int, pin: str) -> None:
    send(application)
    assert send(verify(reference)).status == 0x63C3
    assert send(verify(reference, pin)).status == 0x9000
    assert send(verify(reference)).status == 0x9000
    assert send(verify(reference, "999999")).status == 0x63C2
    assert send(verify(reference)).status == 0x63C2
    assert send(verify(reference, pin)).status == 0x9000
    assert send(verify(reference, "999999")).status == 0x63C2


@pytest.mark.parametrize(
    ("application", "reference"), [("00A4000C", 0x81), ("00A4000C", 0x03), (SELECT_NKS, 0x80), (SELECT_SIGG, 0x80)]
)
def test_no_such_pin(send: Send, application: str, reference: int) -> None:
    send(application)
    for command in (verify(reference), verify(reference, "123456"), change(reference, "123456", "654321")):
        assert send(command).status == 0x6A88


def test_a_blocked_pin_takes_not_even_the_right_value(send: Send) -> None:
    block(send, 0x00)
    assert send(verify(0x00)).status == 0x6983
    assert send(verify(0x00, "123456")).status == 0x6983
    assert send(change(0x00, "123456", "654321")).status == 0x6983


@pytest.mark.parametrize("secret", ["12345", "1" * 17])
def test_a_value_that_no_pin_can_have_costs_no_try(send: Send, secret: str) -> None:
    assert send(verify(0x00, secret)).status == 0x6700
    assert send(verify(0x00)).status == 0x63C3


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("00200100", 0x6A86),
        ("0020FF00", 0x6A86),
        ("00240200 0C 313233343536363534333231", 0x6A86),
        ("002C0400", 0x6A86),
        ("00240000", 0x6700),
        ("00240100", 0x6700),
        ("002C0000", 0x6700),
        ("002C0100", 0x6700),
        ("002C0200", 0x6700),
        ("002C0300 01 31", 0x6700),
        ("00240000 0B 3132333435363635343332", 0x6700),
        ("00240000 21" + "31" * 33, 0x6700),
    ],
)
def test_malformed_pin_commands_cost_no_try(send: Send, command: str, status: int) -> None:
    assert send(command).status == status
    assert send(verify(0x00)).status == 0x63C3


def test_change(send: Send) -> None:
    assert send(change(0x00, "123456", "7654321")).status == 0x9000
    assert send(verify(0x00, "123456")).status == 0x63C2
    assert send(verify(0x00, "7654321")).status == 0x9000


def test_a_wrong_old_pin_costs_a_try_and_the_verified_state(send: Send) -> None:
    send(verify(0x00, "123456"))
    assert send(change(0x00, "999999", "654321")).status == 0x63C2
    assert send(verify(0x00)).status == 0x63C2
    assert send(verify(0x00, "123456")).status == 0x9000


@pytest.mark.parametrize("new", ["12345678901234567", "1234567"])
def test_a_new_puk_has_8_to_16_characters(send: Send, new: str) -> None:
    assert send(change(0x01, "12345678", new)).status == 0x6A80
    assert send(verify(0x01, "12345678")).status == 0x9000


def test_change_without_the_old_pin_needs_the_pin_above_it(send: Send) -> None:
    send(SELECT_NKS)
    assert send(change(0x81, "333333", p1=1)).status == 0x6982
    send(verify(0x00, "123456"))
    assert send(change(0x81, "333333", p1=1)).status == 0x9000
    assert send(verify(0x81, "333333")).status == 0x9000


def test_the_puk_unblocks_and_sets_a_new_pin(send: Send) -> None:
    block(send, 0x00)
    assert send(reset(0x00, "12345678", "222333")).status == 0x9000
    assert send(verify(0x00)).status == 0x63C3
    assert send(verify(0x00, "222333")).status == 0x9000


@pytest.mark.parametrize(("p1", "secrets"), [(0, ("12345678", "222333")), (2, ("222333",))])
def test_a_new_pin_is_not_verified(send: Send, p1: int, secrets: tuple[str, ...]) -> None:
    send(verify(0x01, "12345678"))
    send(verify(0x00, "123456"))
    assert send(reset(0x00, *secrets, p1=p1)).status == 0x9000
    assert send(verify(0x00)).status == 0x63C3


@pytest.mark.parametrize(("p1", "secrets"), [(0, ("99999999", "222333")), (1, ("99999999",))])
def test_a_wrong_puk_closes_what_the_right_one_opened(send: Send, p1: int, secrets: tuple[str, ...]) -> None:
    send(verify(0x01, "12345678"))
    assert send(reset(0x00, *secrets, p1=p1)).status == 0x63C2
    assert send(verify(0x01)).status == 0x63C2
    assert send(reset(0x00, p1=3)).status == 0x6982


@pytest.mark.parametrize("puk", ["1", "12345", "1" * 17])
def test_what_no_puk_can_be_costs_no_try(send: Send, puk: str) -> None:
    send(verify(0x01, "12345678"))
    assert send(reset(0x00, puk, p1=1)).status == 0x6700
    assert send(verify(0x01)).status == 0x9000
    assert send(reset(0x00, "99999999", p1=1)).status == 0x63C2


def test_a_wrong_puk_has_tries_of_its_own(send: Send) -> None:
    block(send, 0x00)
    for left in (2, 1, 0):
        assert send(reset(0x00, "99999999", "222333")).status == 0x63C0 + left
    assert send(reset(0x00, "12345678", "222333")).status == 0x6983
    assert send(verify(0x00)).status == 0x6983


def test_pin_and_puk_unblock_each_other(send: Send) -> None:
    block(send, 0x01)
    assert send(reset(0x01, "123456", "87654321")).status == 0x9000
    assert send(verify(0x01, "87654321")).status == 0x9000


def test_the_right_puk_gets_its_tries_back(send: Send) -> None:
    assert send(reset(0x00, "99999999", "222333")).status == 0x63C2
    assert send(reset(0x00, "12345678", "222333")).status == 0x9000
    assert send(verify(0x01)).status == 0x63C3


def test_a_reset_with_a_bad_new_pin_changes_nothing(send: Send) -> None:
    block(send, 0x00)
    assert send(reset(0x00, "12345678", "12345")).status == 0x6A80
    assert send(verify(0x00)).status == 0x6983


def test_reset_keeps_the_pin_where_no_new_one_is_given(send: Send) -> None:
    block(send, 0x00)
    assert send(reset(0x00, "12345678", p1=1)).status == 0x9000
    assert send(verify(0x00, "123456")).status == 0x9000


@pytest.mark.parametrize(("p1", "secrets", "pin"), [(2, ("222333",), "222333"), (3, (), "123456")])
def test_reset_after_the_puk_was_verified(send: Send, p1: int, secrets: tuple[str, ...], pin: str) -> None:
    block(send, 0x00)
    assert send(reset(0x00, *secrets, p1=p1)).status == 0x6982
    send(verify(0x01, "12345678"))
    assert send(reset(0x00, *secrets, p1=p1)).status == 0x9000
    assert send(verify(0x00, pin)).status == 0x9000


def test_local_pins_of_nks_are_reset_by_the_global_pin(send: Send) -> None:
    send(SELECT_NKS)
    block(send, 0x83)
    assert send(reset(0x83, "123456", "444444")).status == 0x9000
    assert send(verify(0x83, "444444")).status == 0x9000


def test_local_pins_of_different_applications_are_different(send: Send) -> None:
    send(SELECT_NKS)
    send(verify(0x81, "999999"))
    send(SELECT_SIGG)
    assert send(verify(0x81)).status == 0x63C3


@pytest.mark.parametrize(
    ("path", "record", "reference", "application"),
    [
        ("5049", 1, 0x00, "00A4000C"),
        ("5049", 2, 0x01, "00A4000C"),
        ("5049", 3, 0x02, "00A4000C"),
        ("DF025049", 2, 0x83, SELECT_NKS),
    ],
)
def test_the_description_shows_the_counter(
    send: Send, path: str, record: int, reference: int, application: str
) -> None:
    def tries() -> bytes:
        send(f"00A4080C {len(path) // 2:02X} {path}")
        return send(f"00B2{record:02X}0400").data

    head = bytes((0xA0, 6, 0x83, 1, reference, 0x90, 1))
    assert tries() == head + b"\x03"
    send(application)
    send(verify(reference, "999999"))
    assert tries() == head + b"\x02"


def test_a_fresh_card() -> None:
    card = netkey3_fresh()
    card.power_on()

    def status(command: str) -> int:
        return ResponseApdu.decode(card.transmit(bytes.fromhex(command))).status

    assert [status(verify(reference)) for reference in (0x00, 0x01)] == [0x6985, 0x6983]
    assert status(verify(0x00, "123456")) == 0x6985
    assert status(reset(0x01, "123456", "12345678")) == 0x6985
    assert status(change(0x00, "123456", "654321")) == 0x63C2
    assert status(change(0x00, bytes(6), "12345")) == 0x6700
    assert status(change(0x00, bytes(6), "654321")) == 0x9000
    assert status(verify(0x00)) == 0x63C3
    assert status(verify(0x00, "654321")) == 0x9000
    status(SELECT_SIGG)
    assert [status(verify(reference)) for reference in (0x81, 0x83)] == [0x6985, 0x6983]


@pytest.mark.parametrize(
    ("card", "states"),
    [
        # 00 to 03 in the MF, then 80 to 83 in NKS and in SigG.
        (netkey3, "63C3 63C3 63C3 6A88  6A88 63C3 6985 63C3  6A88 63C3 6985 63C3"),
        (netkey3_fresh, "6985 6983 63C3 6A88  6A88 63C3 6985 63C3  6A88 6985 6985 6983"),
    ],
)
def test_the_states_of_all_pins(card: Callable[[], SimulatedTcosCard], states: str) -> None:
    """Those of the delivered card are in GnuPG's table of PIN states (tcos.md 5)."""
    powered = card()
    powered.power_on()
    found = []
    for application, first in (("00A4000C", 0x00), (SELECT_NKS, 0x80), (SELECT_SIGG, 0x80)):
        powered.transmit(bytes.fromhex(application))
        found += [powered.transmit(bytes((0x00, 0x20, 0x00, first + number))).hex().upper() for number in range(4)]
    assert found == states.split()


def test_the_further_pins_open_nothing(send: Send) -> None:
    for application in (SELECT_NKS, SELECT_SIGG):
        send(application)
        assert send(change(0x82, bytes(6), "444444")).status == 0x9000
        assert send(verify(0x82, "444444")).status == 0x9000
        assert send(verify(0x02, "333333")).status == 0x9000
        assert send("002A9E9A 01 00 00").status == 0x6982


def test_no_pin_shows(card: SimulatedTcosCard, send: Send) -> None:
    send(verify(0x00, "123456"))
    shown = repr([*card.file_system.root.pins.values(), card.log, card.instructions, card])
    assert "123456" not in shown
    assert b"123456".hex() not in shown
