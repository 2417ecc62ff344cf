"""The named graphs, each a pure function from a number of positions to a schedule.

Rules kept here:
- equal arguments give equal schedules on every machine and Python version: a seed is a string,
  digested by BLAKE2b, and of `random.Random` only `random()` is used, the one method whose
  sequence Python promises to keep; no logarithm or other library arithmetic decides an edge;
- every function works for any n ≥ 0; what a graph does where n is too small for it is said there;
- weights are left to the job's rule, except where they make the graph what it is (exponential
  graphs, matchings, an explicit graph).

The Base-(k+1) graph has a module of its own, `base_k`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from overlay.schedule import Everybody, Rows, Schedule, from_edges, mutual_rows

# (i, j, weight, one_way): i and j mix with this weight, or, one-way, only j takes in i.
Edge = tuple[int, int, float | None, bool]
Pair = tuple[int, int]

# How often an Erdős–Rényi graph is drawn in the hope that it is connected, before it is joined up.
# Above the threshold p = ln(n)/n the first draws succeed, well below it none would.
DRAWS = 10

# Rows of decimal weights need not add up to 1 exactly.
SUM_TOLERANCE = 1e-9


def complete(n: int) -> Schedule:
    """Everybody mixes with everybody. The rows take constant memory, whatever n."""
    return Schedule((tuple(Everybody(n, position) for position in range(n)),))


def ring(n: int) -> Schedule:
    """0 – 1 – … – n−1 – 0; two positions share one edge, a single one has none."""
    if n < 3:
        return complete(n)
    return from_edges(n, ((position, (position + 1) % n) for position in range(n)))


def star(n: int) -> Schedule:
    """Position 0 is the hub of all others."""
    return from_edges(n, ((0, leaf) for leaf in range(1, n)))


def torus(n: int) -> Schedule:
    """A two-dimensional grid that wraps around, as square as n can be divided: rows × columns = n
    with rows ≤ √n the largest divisor.

    Position i stands at row i // columns, column i % columns. In a dimension of two, both ways
    around meet in one edge. A prime n has one row only: the ring.
    """
    rows = max((d for d in range(1, math.isqrt(n) + 1) if n % d == 0), default=0)
    if rows < 2:
        return ring(n)
    columns = n // rows
    right = ((i, i - i % columns + (i + 1) % columns) for i in range(n))
    down = ((i, (i + columns) % n) for i in range(n))
    return from_edges(n, itertools.chain(right, down))


def random_regular(n: int, degree: int, seed: str) -> Schedule:
    """Everybody has `degree` random neighbours, close to uniformly over such graphs; connected
    for degree ≥ 2. Where n · degree is odd the last position has one neighbour fewer; a degree
    beyond n − 1 gives the complete graph.

    Raises ValueError for a degree below 1.
    """
    if degree < 1:
        raise ValueError(
            f"the degree is how many neighbours a position has: at least 1, not {degree}"
        )
    if degree >= n - 1:
        return complete(n)
    if degree == 2:  # of the random pairings hardly one in √n would be connected
        order = _shuffled(range(n), _random(seed, "random-regular", n, 2))
        return from_edges(n, zip(order, order[1:] + order[:1], strict=True))
    degrees = [degree] * n
    degrees[-1] -= n * degree % 2
    draws = (
        _with_degrees(degrees, _random(seed, "random-regular", n, degree, attempt))
        for attempt in itertools.count()
    )
    return from_edges(n, next(edges for edges in draws if edges and _fits(n, degree, edges)))


def erdos_renyi(n: int, probability: float, seed: str) -> Schedule:
    """Every pair is an edge with this probability, and the graph is connected.

    Of DRAWS draws the first connected one counts. If none is, the last one's components are put in
    a row, by their lowest position, and neighbours in the row joined by one random edge.
    Raises ValueError for a probability outside 0..1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability is between 0 and 1, not {probability}")
    for attempt in range(DRAWS):
        random = _random(seed, "erdos-renyi", n, float(probability), attempt)
        edges = list(_coin_tosses(n, probability, random))
        components = _components(n, edges)
        if len(components) <= 1:
            break
    joints = [
        (_choice(one, random), _choice(other, random))
        for one, other in itertools.pairwise(components)
    ]
    return from_edges(n, edges + joints)


def exponential(n: int) -> Schedule:
    """The static exponential graph: i sends to i + 1, i + 2, i + 4, … (mod n), one-way, and all
    weights, one's own too, are 1 / (⌈log₂ n⌉ + 1): doubly stochastic.

    Ying, Yuan, Chen, Hu, Pan & Yin, "Exponential Graph is Provably Efficient for Decentralized
    Deep Training", NeurIPS 2021, section 3: the spectral gap is 2 / (⌈log₂ n⌉ + 1) for even n and
    larger for odd n (proposition 1).
    """
    hops = [2**power for power in range(_log2_up(n))]
    return Schedule((_circulant(n, hops, 1 / (len(hops) + 1)),))


def one_peer_exponential(n: int) -> Schedule:
    """The static exponential graph one hop a round: in round r, i sends to i + 2ʳ and weighs what
    it gets 1/2. The period is ⌈log₂ n⌉; for n a power of two it averages exactly (Ying et al.
    2021, section 4, lemma 1).
    """
    rounds = [_circulant(n, [2**power], 1 / 2) for power in range(_log2_up(n))]
    return Schedule(tuple(rounds) or (mutual_rows(n, ()),))


def random_matching(n: int, period: int, seed: str) -> Schedule:
    """In each of `period` rounds everybody meets one random other and both take the average; with
    n odd one sits out. Raises ValueError for a period below 1.
    """
    if period < 1:
        raise ValueError(f"the period is a number of rounds, at least 1, not {period}")
    return Schedule(tuple(_matching(n, _random(seed, "matching", n, r)) for r in range(period)))


def static(n: int, edges: Iterable[Edge]) -> Schedule:
    """An explicit graph of edges (i, j, weight, one_way). One-way, only j takes in i's vector.

    Either every edge has a weight, or none has and the job's rule decides. Raises ValueError for
    an edge that is not between two different positions or comes twice, a weight that is not in
    (0, 1], a graph with some weights only, and a position whose weights add up to more than 1.
    """
    edges = list(edges)
    rows: list[dict[int, float | None]] = [{} for _ in range(n)]
    for edge in edges:
        one, other, weight, one_way = edge
        _check_edge(n, edge)
        for taker, taken in [(other, one)] if one_way else [(other, one), (one, other)]:
            if taken in rows[taker]:
                raise ValueError(f"edge {one}-{other} comes twice; give it once")
            rows[taker][taken] = weight
    _check_weights(rows)
    return Schedule((tuple(rows),))


def _check_edge(n: int, edge: Edge) -> None:
    one, other, weight, _ = edge
    if not (0 <= one < n and 0 <= other < n):
        raise ValueError(f"edge {one}-{other} leaves the graph; positions are 0 to {n - 1}")
    if one == other:
        raise ValueError(f"edge {one}-{other} is a loop; the weight that edges leave is one's own")
    if weight is not None and not 0 < weight <= 1:
        raise ValueError(f"edge {one}-{other} has weight {weight}; a weight is in (0, 1]")


def _check_weights(rows: Sequence[dict[int, float | None]]) -> None:
    given = [[weight for weight in row.values() if weight is not None] for row in rows]
    if 0 < sum(map(len, given)) < sum(map(len, rows)):
        raise ValueError("some edges have a weight and some have none; give one to all or to none")
    for position, weights in enumerate(given):
        if math.fsum(weights) > 1 + SUM_TOLERANCE:
            total = math.fsum(weights)
            raise ValueError(f"the weights at position {position} add up to {total:g}; at most 1")


def _circulant(n: int, hops: Sequence[int], weight: float) -> Rows:
    """Everybody i takes in i − hop for every hop."""
    return tuple({(position - hop) % n: weight for hop in hops} for position in range(n))


def _log2_up(n: int) -> int:
    """⌈log₂ n⌉, 0 for n < 2."""
    return max(n - 1, 0).bit_length()


def _matching(n: int, random: Random) -> Rows:
    order = _shuffled(range(n), random)
    return mutual_rows(n, ((order[at - 1], order[at], 1 / 2) for at in range(1, n, 2)))


def _coin_tosses(n: int, probability: float, random: Random) -> Iterator[Pair]:
    """The pairs (i, j), i < j, that come out heads; the work goes with the heads, not the pairs."""
    tails = _run_of_tails(1 - probability, math.comb(n, 2), random)
    at = tails()
    for one in range(n):
        others = n - 1 - one
        while at < others:
            yield one, one + 1 + at
            at += 1 + tails()
        at -= others


def _run_of_tails(chance: float, limit: int, random: Random) -> Callable[[], int]:
    """Draws how many tails of this chance come before heads, `limit` or more where heads does not
    come in time: the largest g with chanceᵍ > u for a uniform u.

    The usual floor(log u / log chance) would leave edges to the platform's logarithm; here only
    products decide, which are the same everywhere.
    """
    powers = [chance]  # chance to the power of 1, 2, 4, …
    for _ in range(limit.bit_length()):
        powers.append(powers[-1] * powers[-1])

    def draw() -> int:
        target, product, run = random.random(), 1.0, 0
        for exponent in reversed(range(len(powers))):
            if product * powers[exponent] > target:
                product *= powers[exponent]
                run += 2**exponent
        return run

    return draw


def _fits(n: int, degree: int, edges: list[Pair]) -> bool:
    """Mere pairs cannot be connected; everything else is to be."""
    return degree == 1 or len(_components(n, edges)) == 1


def _with_degrees(degrees: Sequence[int], random: Random) -> list[Pair] | None:
    """A random simple graph with these degrees (their sum is even); None if this draw led nowhere.

    A dense graph is the complement of a sparse one, which is easier to find.
    """
    n = len(degrees)
    if 2 * sum(degrees) <= n * (n - 1):
        return _paired(degrees, random)
    missing = _paired([n - 1 - degree for degree in degrees], random)
    if missing is None:
        return None
    absent = {frozenset(pair) for pair in missing}
    return [pair for pair in itertools.combinations(range(n), 2) if frozenset(pair) not in absent]


def _paired(degrees: Sequence[int], random: Random) -> list[Pair] | None:
    """The pairing model (Bollobás 1980): as many ends a position as its degree, paired at random.
    A pair that would be a loop or a second edge trades ends with random edges until it is neither.
    """
    ends = _shuffled([i for i, degree in enumerate(degrees) for _ in range(degree)], random)
    edges: list[Pair] = []
    known: set[frozenset[int]] = set()
    bad: list[Pair] = []
    for one, other in zip(ends[::2], ends[1::2], strict=True):
        pair = frozenset((one, other))
        if one == other or pair in known:
            bad.append((one, other))
        else:
            edges.append((one, other))
            known.add(pair)
    return edges if all(_trade(pair, edges, known, random) for pair in bad) else None


def _trade(
    pair: Pair, edges: list[Pair], known: set[frozenset[int]], random: Random, *, tries: int = 1000
) -> bool:
    """Put (a, c) and (b, d) for the bad pair (a, b) and an edge (c, d)."""
    a, b = pair
    for _ in range(tries if edges else 0):
        at = _below(len(edges), random)
        c, d = edges[at] if random.random() < 1 / 2 else edges[at][::-1]
        one, other = frozenset((a, c)), frozenset((b, d))
        if len(one) == len(other) == 2 and one != other and not {one, other} & known:
            known.remove(frozenset((c, d)))
            known.update((one, other))
            edges[at] = (a, c)
            edges.append((b, d))
            return True
    return False


def _components(n: int, edges: Iterable[Pair]) -> list[list[int]]:
    """The connected components, each in ascending order, the one with the lowest position first."""
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for one, other in edges:
        neighbours[one].append(other)
        neighbours[other].append(one)
    components, seen = [], [False] * n
    for start in range(n):
        if not seen[start]:
            seen[start] = True
            component = [start]
            for position in component:  # which grows while it is walked
                for other in neighbours[position]:
                    if not seen[other]:
                        seen[other] = True
                        component.append(other)
            components.append(sorted(component))
    return components


def _random(seed: str, *purpose: object) -> Random:
    """A generator of its own for everything that is drawn."""
    text = "/".join(map(str, (seed, *purpose)))
    return Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()))


def _below(limit: int, random: Random) -> int:
    return int(random.random() * limit)


def _choice(items: Sequence[int], random: Random) -> int:
    return items[_below(len(items), random)]


def _shuffled(items: Iterable[int], random: Random) -> list[int]:
    """Fisher & Yates."""
    result = list(items)
    for last in range(len(result) - 1, 0, -1):
        other = _below(last + 1, random)
        result[last], result[other] = result[other], result[last]
    return result
