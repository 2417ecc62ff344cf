from cli.demo import _entry_round


def row(number, neighbours, missing=0):
    return {"round": number, "neighbours": neighbours, "missing": missing}


def test_a_newcomer_enters_in_the_round_that_really_mixed_it():
    rows = [row(9, 4), row(10, 3), row(11, 3), row(12, 4, missing=1), row(13, 4), row(14, 4)]
    # Round 9 is from before the crash, 11 was announced without it, in 12 it did not arrive.
    assert _entry_round(rows, 10, mixed=4) == 13
    assert _entry_round(rows[:4], 10, mixed=4) is None
