from types import SimpleNamespace

import pytest

from daemon.naming import peer_named
from daemon.refusals import RpcError
from overlay.identity import spelled

A, B, C, GONE = ("a" * 52, "ab" + "b" * 50, "c" * 52, "g" * 52)


def named(word, names, *, gone=(), besides=()):
    records = [SimpleNamespace(peer_id=peer, name=name) for peer, name in names.items()]
    table = SimpleNamespace(records=lambda: records, is_live=lambda peer: peer not in gone)
    overlay = SimpleNamespace(machine=SimpleNamespace(table=table))
    return peer_named(SimpleNamespace(overlay=overlay), word, besides=besides)


NAMES = {A: "ann", B: "bob", C: "ann"}


@pytest.mark.parametrize(
    ("word", "peer"),
    [
        (A, A), (A.upper(), A), (spelled(A), A), (f" {spelled(B)} ", B),
        (spelled(B).replace("-", ""), B), ("bob", B), ("c", C), (B[:8], B), (B[:51], B),
    ],
)  # fmt: skip
def test_a_peer_is_named_by_id_its_beginning_or_name(word, peer):
    assert named(word, NAMES) == peer


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("", "no known peer is called ''"),
        ("zoe", "no known peer is called 'zoe'; gossipctl members lists them"),
        (GONE, "no known peer is"),
        ("ann", "2 known peers are called 'ann'"),
        ("a", "2 known peers are called 'a'"),
        ("x" * 200, f"'{'x' * 64}'"),
    ],
)
def test_a_word_that_names_nobody_or_several_is_refused(word, words):
    with pytest.raises(RpcError) as caught:
        named(word, NAMES)
    assert words in str(caught.value)
    assert caught.value.kind == "unknown_peer"


def test_a_slip_of_the_hand_names_nobody():
    for place, letter in enumerate(spelled(B)):
        if letter != "-":
            slip = spelled(B)[:place] + ("q" if letter != "q" else "r") + spelled(B)[place + 1 :]
            with pytest.raises(RpcError, match=r"mistyped|no known peer"):
                named(slip, NAMES)


def test_who_has_gone_counts_only_while_nobody_else_is_meant():
    assert named("ann", NAMES, gone=(A,)) == C
    assert named("bob", NAMES, gone=(B,)) == B
    with pytest.raises(RpcError, match="2 known peers"):
        named("ann", NAMES, gone=(A, C))


def test_an_id_wins_over_a_name():
    assert named(C, NAMES | {A: C}) == C


def test_ids_that_are_in_no_table_can_be_named_too():
    assert named("gg", NAMES, besides=(GONE,)) == GONE
    assert named(GONE, NAMES, besides=(GONE,)) == GONE
