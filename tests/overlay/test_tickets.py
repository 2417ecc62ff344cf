import base64
import string

import pytest

from overlay.tickets import (
    MAX_TICKET,
    PREFIX,
    SECRET_BYTES,
    Ticket,
    is_ticket,
    read_ticket,
    write_ticket,
)

NETWORK = "abcdefgh" * 6 + "abcd"
SECRET = bytes(range(100, 100 + SECRET_BYTES))
TICKET = Ticket(NETWORK, ("wss://192.0.2.7:7400", "wss://[2001:db8::1]:7400"), SECRET, 2**33)
TEXT = write_ticket(TICKET)


def test_a_ticket_is_one_word_that_says_what_was_written():
    assert read_ticket(TEXT) == TICKET
    assert read_ticket(f"  {TEXT}\n") == TICKET
    assert is_ticket(TEXT)
    assert TEXT.startswith(PREFIX)
    assert not set(TEXT) - set(string.ascii_letters + string.digits + "-_")
    assert len(TEXT) < 250


@pytest.mark.parametrize("addresses", [1, 8])
def test_a_ticket_with_few_or_many_addresses_is_readable(addresses):
    ticket = Ticket(NETWORK, tuple(f"wss://host{n}:1" for n in range(addresses)), SECRET, 0)
    assert read_ticket(write_ticket(ticket)) == ticket


def read_or_none(text):
    try:
        return read_ticket(text)
    except ValueError:
        return None


@pytest.mark.parametrize("place", range(len(TEXT)))
def test_every_changed_character_is_found(place):
    for other in "Aa0z-_ é+/=":
        changed = TEXT[:place] + other + TEXT[place + 1 :]
        # The last character carries bits that say nothing, and + and - are one digit, / and _ too.
        harmless = place == len(TEXT) - 1 or other in "+/"
        assert changed == TEXT or read_or_none(changed) in ((None, TICKET) if harmless else (None,))


@pytest.mark.parametrize("place", range(len(TEXT) - 1))
def test_characters_that_changed_places_are_found(place):
    changed = TEXT[:place] + TEXT[place + 1] + TEXT[place] + TEXT[place + 2 :]
    assert changed == TEXT or read_or_none(changed) is None


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_part_of_a_ticket_is_no_ticket(length):
    assert read_or_none(TEXT[:length]) is None
    assert read_or_none(PREFIX + TEXT[len(TEXT) - length :]) in (None, TICKET)


@pytest.mark.parametrize(
    "text", ["", PREFIX, "wss://192.0.2.7:7400", PREFIX + "A" * 5, PREFIX + "A" * 100_000, TEXT * 2]
)
def test_what_is_no_ticket_is_said_to_be_damaged(text):
    with pytest.raises(ValueError, match="the ticket is damaged: copy the whole of it once more"):
        read_ticket(text)


def test_an_error_never_quotes_the_ticket():
    with pytest.raises(ValueError, match="damaged") as caught:
        read_ticket(TEXT[:-3])
    error = caught.value
    seen = f"{error}{error!r}{error.__cause__!r}"
    assert TEXT[len(PREFIX) : len(PREFIX) + 8] not in seen
    assert TEXT[-12:-3] not in seen


def test_the_secret_is_not_shown():
    for form in (repr(TICKET), str(TICKET), f"{[TICKET]}"):
        assert "secret" not in form
        assert SECRET.hex() not in form
        assert repr(SECRET)[2:-1] not in form
        assert base64.b64encode(SECRET).decode() not in form
        assert NETWORK in form


@pytest.mark.parametrize(
    "wrong",
    [
        {"network": "short"},
        {"network": NETWORK.upper()},
        {"secret": SECRET[:-1]},
        {"secret": SECRET + b"x"},
        {"addresses": ()},
        {"addresses": ("wss://h:1",) * 9},
        {"expires_at": -1},
        {"expires_at": 2**53},
    ],
)
def test_a_ticket_of_the_wrong_form_cannot_be_made(wrong):
    fields = {"network": NETWORK, "addresses": ("wss://h:1",), "secret": SECRET, "expires_at": 1}
    with pytest.raises(ValueError, match=r"wrong form|one to eight|out of range"):
        Ticket(**{**fields, **wrong})


def test_the_longest_ticket_can_be_read():
    long = tuple(f"wss://{'h' * 240}{n}:65535" for n in range(8))
    text = write_ticket(Ticket(NETWORK, long, SECRET, 2**53 - 1))
    assert len(text) < 2 * MAX_TICKET
    assert read_ticket(text).addresses == long
