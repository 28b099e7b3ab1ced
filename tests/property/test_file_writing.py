"""However a writing is cut off, the file is as it was, or begins with FF, or is whole."""

from hypothesis import given
from hypothesis import strategies as st

from demail_hw.card_manager.file_writing import ERASED, FileState, Write, erasure, replacement
from demail_hw.tcos.open_file import LONGEST_UPDATE

SIZES = st.integers(1, 3000)


def written(before: bytes, writes: tuple[Write, ...]) -> bytes:
    content = bytearray(before)
    for write in writes:
        content[write.offset : write.offset + len(write.data)] = write.data
    return bytes(content)


@given(st.data(), SIZES)
def test_replacement(data: st.DataObject, size: int) -> None:
    content = data.draw(st.binary(min_size=1, max_size=size))
    before = data.draw(st.binary(min_size=size, max_size=size))
    writes = replacement(content, size)
    assert written(before, writes) == content.ljust(size, ERASED)
    assert all(0 < len(write.data) <= LONGEST_UPDATE for write in writes)
    cut = data.draw(st.integers(1, len(writes) - 1))
    assert written(before, writes[:cut])[:1] == ERASED
    assert {write.before for write in writes[cut:]} == {FileState.EMPTY}


@given(st.data(), SIZES)
def test_erasure(data: st.DataObject, size: int) -> None:
    before = data.draw(st.binary(min_size=size, max_size=size))
    writes = erasure(ERASED * size)
    assert written(before, writes) == ERASED * size
    cut = data.draw(st.integers(1, len(writes)))
    assert written(before, writes[:cut])[:1] == ERASED
