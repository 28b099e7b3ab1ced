"""What is different between two looks."""

import datetime

import pytest

from demail_hw.interfaces import ReaderInfo
from demail_hw.reader_watch.changes import Readers, changes, remembering

NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


def readers(**cards: bool | None) -> Readers:
    return {name: ReaderInfo(name, name.upper(), None, card=card, in_use=False) for name, card in cards.items()}


def told(*looks: Readers) -> list[list[str]]:
    """The events of each look."""
    seen: Readers = {}
    found = []
    for look in looks:
        before, seen = seen, remembering(seen, look)
        found.append([f"{each.reader.address} {each.event.value}" for each in changes(before, seen, NOON)])
    return found


@pytest.mark.parametrize(
    ("before", "now", "event"),
    [
        (None, None, []),
        (None, False, []),
        (None, True, ["a card inserted"]),
        (False, None, []),
        (False, False, []),
        (False, True, ["a card inserted"]),
        (True, None, []),
        (True, False, ["a card removed"]),
        (True, True, []),
    ],
)
def test_a_card_comes_and_goes(before: bool | None, now: bool | None, event: list[str]) -> None:
    assert told(readers(a=before), readers(a=now))[1] == event


@pytest.mark.parametrize(("card", "event"), [(True, ["a card inserted"]), (False, []), (None, [])])
def test_a_reader_arrives_with_what_is_in_it(card: bool | None, event: list[str]) -> None:
    assert told(readers(a=card)) == [["a reader arrived", *event]]


def test_a_look_that_does_not_tell_forgets_nothing() -> None:
    """A reader that somebody else uses for a moment, say."""
    assert told(readers(a=True), readers(a=None), readers(a=True))[1:] == [[], []]
    assert told(readers(a=True), readers(a=None), readers(a=False))[1:] == [[], ["a card removed"]]


def test_a_reader_takes_its_card_along() -> None:
    assert told(readers(a=True), {}, readers(a=True))[1:] == [
        ["a reader left"],
        ["a reader arrived", "a card inserted"],
    ]


def test_who_leaves_is_told_first_then_who_arrives_then_the_cards() -> None:
    before, now = readers(a=False, b=True, c=None), readers(d=True, b=False, e=None)
    assert told(before, now)[1] == [
        "a reader left",
        "c reader left",
        "d reader arrived",
        "e reader arrived",
        "d card inserted",
        "b card removed",
    ]


def test_an_event_shows_the_reader_as_it_was_seen() -> None:
    (arrived, inserted) = changes({}, readers(a=True), NOON)
    (left,) = changes(readers(a=True), {}, NOON)
    assert arrived.reader == inserted.reader == left.reader == readers(a=True)["a"]
    assert {arrived.at, inserted.at, left.at} == {NOON}
