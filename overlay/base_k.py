"""The Base-(k+1) graph: exact averaging among any number of positions in O(log n) rounds.

Takezawa, Sato, Bao, Niwa & Yamada, "Beyond Exponential Graph: Communication-Efficient Topologies
for Decentralized Learning via Finite-time Convergence", NeurIPS 2023, section 4. In no round has a
position more than k partners, and the product of a period's matrices is the averaging matrix.

How it works, with base = k + 1:
- a *hyper-hypercube* serves a group whose size has no prime factor above the base: it numbers the
  members in mixed radix and averages along one digit a round;
- the *simple* graph writes any other size in the base and makes one block of each digit. Every
  block averages itself, the largest gives all smaller ones its share of the whole, then the next
  largest does, and a block that has given averages itself again;
- the *Base-(k+1)* graph first takes out of n what a hyper-hypercube can handle.

All of it is lists of rounds of weighted edges between given members, so that a construction can be
laid over any subset of the positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from overlay.schedule import Schedule, mutual_rows

Members = Sequence[int]
Block = Sequence[Members]  # equal parts, each of a power of the base
Edges = list[tuple[int, int, float | None]]


def base_k(n: int, k: int) -> Schedule:
    """At most k partners a round, at most 2·log_{k+1}(n) + 2 rounds (theorem 1).

    A k beyond n − 1 counts as n − 1, one round of the complete graph. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"k is how many partners a position has in a round: at least 1, not {k}")
    rounds = _base_graph(range(n), min(k + 1, n)) if n > 1 else [[]]
    return Schedule(tuple(mutual_rows(n, edges) for edges in rounds))


def _base_graph(members: Members, base: int) -> list[Edges]:
    """Algorithm 3: a table whose rows average by the simple graph and whose columns, of a size
    without large prime factors, by a hyper-hypercube; or the simple graph on all, where shorter."""
    width = _without_small_factors(len(members), base)
    table = [members[start : start + width] for start in range(0, len(members), width)]
    across = _together([_simple_graph(row, base) for row in table])
    down = _together([_hyper_hypercube(column, base) for column in zip(*table, strict=True)])
    return min(across + down, _simple_graph(members, base), key=len)


def _simple_graph(members: Members, base: int) -> list[Edges]:
    """Algorithm 2. Its length is the largest block's: averaging, giving once, averaging again."""
    if _factors(len(members), base) is not None:
        return _hyper_hypercube(members, base)
    blocks = _blocks(members, base)
    before = [_hyper_hypercube(_all_of(block), base) for block in blocks]
    after = [_together([_hyper_hypercube(part, base) for part in block]) for block in blocks]
    rounds = [
        [edge for averaging in before for edge in _cyclic(averaging, step)]
        for step in range(len(before[0]))
    ]
    for step in range(1 + len(after[0])):
        edges = _giving(blocks[step:], base)
        for given, averaging in enumerate(after[:step]):
            edges += _cyclic(averaging, step - given - 1)
        rounds.append(edges)
    return rounds


def _giving(blocks: Sequence[Block], base: int) -> Edges:
    """The first block gives all later ones its share of the average over this block and them.

    Every later member has one partner in each part of the giver, so that all parts end up with
    the same sum. Members of the giver left without a partner meet in cliques; they are equal by
    now, so this is of use to training only.
    """
    if len(blocks) < 2:
        return []
    giver, *later = blocks
    takers = [member for block in later for member in _all_of(block)]
    share = len(_all_of(giver)) / (len(_all_of(giver)) + len(takers))
    edges: Edges = [
        (taker, partner, share / len(giver))
        for part in giver
        for taker, partner in zip(takers, part[: len(takers)], strict=True)
    ]
    idle = [member for part in giver for member in part[len(takers) :]]
    for start in range(0, len(idle), base):
        edges += _clique(idle[start : start + base])
    return edges


def _hyper_hypercube(members: Members, base: int) -> list[Edges]:
    """Algorithm 1: round d joins the members that agree in every digit but d."""
    factors = _factors(len(members), base)
    assert factors is not None, "a prime factor of the size is above the base"
    rounds, stride = [], 1
    for factor in factors:
        span = stride * factor
        rounds.append(
            [
                edge
                for start in range(0, len(members), span)
                for offset in range(start, start + stride)
                for edge in _clique(members[offset : start + span : stride])
            ]
        )
        stride = span
    return rounds


def _clique(members: Members) -> Edges:
    """Everybody with everybody: one round to the average."""
    return [(one, other, 1 / len(members)) for one, other in itertools.combinations(members, 2)]


def _blocks(members: Members, base: int) -> list[Block]:
    """One block for every digit a·baseᵖ of the count that is not 0, the largest first, in a parts
    of baseᵖ members."""
    power = 1
    while power * base <= len(members):
        power *= base
    blocks: list[Block] = []
    start = 0
    while power:
        digit = (len(members) - start) // power
        stop = start + digit * power
        if digit:
            blocks.append([members[at : at + power] for at in range(start, stop, power)])
        start, power = stop, power // base
    return blocks


def _factors(n: int, largest: int) -> tuple[int, ...] | None:
    """The fewest factors up to `largest` whose product is n; None where a prime is above it."""
    divisors = [divisor for divisor in range(2, min(n, largest) + 1) if n % divisor == 0]
    chains: dict[int, tuple[int, ...]] = {1: ()}
    newest = chains
    while newest and n not in chains:
        newest = {
            product * divisor: (*chain, divisor)
            for product, chain in newest.items()
            for divisor in divisors
            if n % (product * divisor) == 0 and product * divisor not in chains
        }
        chains = chains | newest
    return chains.get(n)


def _without_small_factors(n: int, largest: int) -> int:
    """n divided by all its prime factors up to `largest`."""
    for factor in range(2, largest + 1):
        while n % factor == 0:
            n //= factor
    return n


def _together(groups: Sequence[list[Edges]]) -> list[Edges]:
    """Equally many rounds of disjoint groups, side by side."""
    return [list(itertools.chain(*edges)) for edges in zip(*groups, strict=True)]


def _cyclic(rounds: list[Edges], step: int) -> Edges:
    """Who has averaged may go on doing so until the others have."""
    return rounds[step % len(rounds)] if rounds else []


def _all_of(block: Block) -> list[int]:
    return [member for part in block for member in part]
