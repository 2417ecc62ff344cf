import pytest

from cli import render


def test_columns_are_as_wide_as_needed_and_numbers_stand_to_the_right():
    text = render.table(("NAME", "ROUND"), [("a", 7), ("longer", 1234567)])
    assert text.splitlines() == [
        "NAME      ROUND",
        "a             7",
        "longer  1234567",
    ]


def test_nothing_is_a_dash_and_does_not_turn_a_column_of_numbers():
    text = render.table(("A", "B"), [(None, "x"), (12, None)])
    assert text.splitlines() == [" A  B", " –  x", "12  –"]


@pytest.mark.parametrize("cell", ["93.4 %", "0.25 s", "1.2 MB", "-3", "1.2e-05", "0"])
def test_what_reads_as_a_number_stands_to_the_right(cell):
    assert render.table(("A WIDE HEADING",), [(cell,)]).splitlines()[1] == cell.rjust(14)


@pytest.mark.parametrize("cell", ["alive", "x 1", "ws://127.0.0.1:1", "10:20:30"])
def test_words_stand_to_the_left(cell):
    assert render.table(("A WIDE HEADING",), [(cell,)]).splitlines()[1] == cell


def test_a_table_without_rows_is_its_heading():
    assert render.table(("A", "B"), []) == "A  B"


def test_pairs_are_aligned_and_leave_out_what_is_not_known():
    text = render.pairs([("a", 1), ("long", "x"), ("none", None), ("empty", ""), ("zero", 0)])
    assert text.splitlines() == ["a     1", "long  x", "zero  0"]
    assert render.pairs([]) == ""


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (render.percent, 0.934, "93.4 %"),
        (render.percent, 1.0, "100.0 %"),
        (render.percent, None, None),
        (render.number, 0.123456, "0.1235"),
        (render.number, None, None),
        (render.size, 0, "0 B"),
        (render.size, 999, "999 B"),
        (render.size, 1000, "1.0 kB"),
        (render.size, 60_500_000, "60.5 MB"),
        (render.size, 5e12, "5000.0 GB"),
        (render.size, None, None),
        (render.duration, 0.4, "0 s"),
        (render.duration, 119, "119 s"),
        (render.duration, 130, "2 min"),
        (render.duration, 7300, "2.0 h"),
        (render.duration, 47 * 3600, "47.0 h"),
        (render.duration, 90 * 86400 - 5, "90 days"),
    ],
)
def test_figures_are_short(show, value, text):
    assert show(value) == text
