import pytest

from overlay.rumours import Rumours
from overlay.wire import Evidence


@pytest.fixture
def says(id_of):
    """says(observer, subject, incarnation=1, hard=False): a testimony, by numbers."""

    def says(observer, subject, *, incarnation=1, hard=False):
        return Evidence(id_of(subject), incarnation, id_of(observer), hard)

    return says


@pytest.fixture
def rumours():
    return Rumours()


def test_what_was_heard_is_fresh_once(rumours, says):
    told = [says(1, 9), says(2, 9)]
    assert rumours.fresh(told) == told
    assert rumours.fresh(told) == told  # asking is not hearing
    rumours.add(told[:1])
    assert rumours.fresh(told) == told[1:]


def test_each_difference_makes_another_piece(rumours, says):
    rumours.add([says(1, 9)])
    others = [says(2, 9), says(1, 8), says(1, 9, incarnation=2), says(1, 9, hard=True)]
    assert rumours.fresh(others) == others


@pytest.mark.parametrize("rotations_before", [0, 1, 5])
def test_a_piece_is_known_for_one_to_two_generations(rumours, says, rotations_before):
    for _ in range(rotations_before):
        rumours.rotate()
    piece = says(1, 9)
    rumours.add([piece])
    rumours.keep(piece)
    rumours.rotate()
    assert rumours.fresh([piece]) == []
    assert rumours.is_doubted(piece.subject)
    assert rumours.about(piece.subject) == [piece]
    rumours.rotate()
    assert rumours.fresh([piece]) == [piece]
    assert not rumours.is_doubted(piece.subject)
    assert rumours.about(piece.subject) == []


def test_nothing_is_left_of_made_up_testimony(rumours, says):
    for number in range(200):
        piece = says(number, number + 1)
        rumours.add([piece])
        rumours.keep(piece)
    rumours.rotate()
    rumours.rotate()
    assert not rumours
    assert all(not held for held in vars(rumours).values())


def test_there_are_rumours_while_anybody_is_doubted(rumours, says):
    assert not rumours
    rumours.add([says(1, 9)])
    assert rumours
    rumours.rotate()
    assert rumours
    rumours.rotate()
    assert not rumours


def test_the_strongest_word_of_each_observer_is_kept(rumours, says):
    soft, hard = says(1, 9), says(1, 9, hard=True)
    later = says(1, 9, incarnation=2)
    for order in ([soft, hard], [hard, soft]):
        kept = Rumours()
        for piece in order:
            kept.keep(piece)
        assert kept.about(soft.subject) == [hard]
        kept.keep(later)
        assert kept.about(soft.subject) == [later]
        kept.keep(hard)
        assert kept.about(soft.subject) == [later]


def test_words_are_kept_by_whom_they_are_about(rumours, says, id_of):
    for piece in (says(1, 9), says(2, 9), says(1, 8)):
        rumours.keep(piece)
    assert rumours.about(id_of(9)) == [says(1, 9), says(2, 9)]
    assert rumours.about(id_of(8)) == [says(1, 8)]
    assert rumours.about(id_of(7)) == []


def test_words_of_both_generations_count(rumours, says, id_of):
    rumours.keep(says(1, 9))
    rumours.rotate()
    rumours.keep(says(2, 9))
    assert set(rumours.about(id_of(9))) == {says(1, 9), says(2, 9)}


@pytest.mark.parametrize("rotations", [0, 1])
def test_a_settled_doubt_is_gone_and_not_heard_again(rumours, says, id_of, rotations):
    for piece in (says(1, 9), says(1, 8)):
        rumours.add([piece])
        rumours.keep(piece)
    for _ in range(rotations):
        rumours.rotate()
    rumours.settle([id_of(9), id_of(7)])  # of 7 nobody spoke
    assert not rumours.is_doubted(id_of(9))
    assert rumours.about(id_of(9)) == []
    # What is still under way is not passed on again.
    assert rumours.fresh([says(1, 9)]) == []
    assert rumours.is_doubted(id_of(8))
    assert rumours.about(id_of(8)) == [says(1, 8)]
