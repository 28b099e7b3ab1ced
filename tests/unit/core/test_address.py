import pytest
from hypothesis import given
from hypothesis import strategies as st

from demail_hw.address import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("usbip://server/", Address("usbip", "server")),
        ("usbip://server", Address("usbip", "server")),
        (
            "usbips://server/1-1?ca=%2Fetc%2Fca.pem&cert=c.pem&key=k.pem",
            Address("usbips", "server", selector="1-1", cert="c.pem", key="k.pem", ca="/etc/ca.pem"),
        ),
        ("usbip://server:1234/", Address("usbip", "server", 1234)),
        ("usbip://[::1]:1234/1-1", Address("usbip", "::1", 1234, "1-1")),
        ("usbip://server/serial=53692013000000", Address("usbip", "server", None, "serial=53692013000000")),
        ("usbip://server/04e6:5710", Address("usbip", "server", None, "04e6:5710")),
        ("sim:", Address("sim")),
        ("sim:netkey3", Address("sim", selector="netkey3")),
        ("sim:netkey3?card=89490173", Address("sim", selector="netkey3", card="89490173")),
        ("sim:?card=8949%2001+73 51 AB", Address("sim", card="8949017351AB")),
        ("sim:?card=89ab", Address("sim", card="89AB")),
        ("usbip://s/?card=89&reader=536", Address("usbip", "s", card="89", reader="536")),
        ("usbip://s/1-1?interface=0", Address("usbip", "s", selector="1-1", interface=0)),
        ("libusb:?interface=12", Address("libusb", interface=12)),
        ("SIM:netkey3", Address("sim", selector="netkey3")),
    ],
)
def test_parse(text: str, expected: Address) -> None:
    parsed = Address.parse(text)
    assert parsed == expected
    assert Address.parse(str(parsed)) == expected


def test_the_text_is_easy_to_read() -> None:
    files = "ca=/etc/ca.pem&cert=credential:c.pem&key=/etc/k.pem"
    assert str(Address.parse(f"usbips://[::1]:3241/1-1?{files}")) == f"usbips://[::1]:3241/1-1?{files}"


def test_selectors() -> None:
    assert Address.parse("usbip://s/serial=12").serial == "12"
    assert Address.parse("usbip://s/04E6:5710").vendor_product == (0x04E6, 0x5710)
    assert Address.parse("usbip://s/3-1.2").bus_id == "3-1.2"
    plain = Address.parse("usbip://s/")
    assert (plain.serial, plain.vendor_product, plain.bus_id) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("server", "no scheme such as usbip:, pcsc: or sim:"),
        ("", "no scheme"),
        ("04e6:5710", "no scheme"),
        ("usbip://server/?card=", "empty"),
        ("usbip://server/?card=89&card=90", "twice"),
        ("sim:?card=8949017", "demail-hw card info"),
        ("sim:?card=89490173-5100", "20 digits"),
        ("sim:?card=894901735G", "20 digits"),
        ("sim:?card=%20", "20 digits"),
        ("sim:?card=٨٩", "20 digits"),
        ("usbip://server/?cart=1", "unknown parameter 'cart'"),
        ("usbip://server:99999/", "'usbip://server:99999/': the port is no number up to 65535"),
        ("usbip://server:abc/", "'usbip://server:abc/': the port is no number"),
        ("usbip://user:word@server/", "no user or password"),
        ("usbip://server/ ", "ends with a blank"),
        (" usbip://server/", "begins or ends with a blank|no scheme"),
        ("usbip://server/?interface=-1", "the interface is no number"),
        ("usbip://server/?interface=256", "the interface is no number up to 255"),
        ("usbip://server/?interface=٣", "the interface is no number"),
        ("usbip://server/serial=", "the serial number is empty"),
        ("libusb:serial=", "the serial number is empty"),
    ],
)
def test_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Address.parse(text)


@pytest.mark.parametrize("rest", ["", "?cart=1"])
def test_a_password_is_not_repeated(rest: str) -> None:
    with pytest.raises(ValueError, match="password") as caught:
        Address.parse(f"usbip://user:654321@server/{rest}")
    assert "654321" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_value_error(text: str) -> None:
    try:
        Address.parse(text)
    except ValueError:
        return
