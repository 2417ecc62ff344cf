"""Which rows count, how far they are from each other, and combinations of them.

Most rules only ever hold combinations of the rows, y = Σ w_i x_i with Σ w_i = 1. All that they ask
about y follows from the inner products of the rows, [n, n] numbers, in one pass over the vectors:

    ‖x_i − y‖² = P_ii − 2 (P w)_i + wᵀ P w,   P_ij = ⟨x_i − r, x_j − r⟩ for any point r.

Rules kept here:
- products are accumulated in float64: the square of 1e30 is no infinity there;
- r is a row in the middle of the crowd, for what is small beside ‖x_i − r‖ drowns in rounding;
- the vectors are read in chunks of columns; extra memory is [n, CHUNK_COLUMNS] doubles;
- chunks are worked on in one thread. torch's threads wait for each other after each small step,
  and where anybody else computes too, such as a second peer, that takes several times longer than
  the other cores save. What is one step for all of the vectors has all threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from learner import mixing
from learner.errors import LearnerError

# 20 rows of 2**12 doubles are 640 KiB, which stay in a second-level cache.
CHUNK_COLUMNS = 1 << 12
# Of differences in float32, with all threads: 20 rows are 1.25 MiB.
QUICK_COLUMNS = 1 << 14
# Of ‖x_i − r‖², about 1e-16 is rounding: distances² a millionth of it still have ten digits.
RESOLUTION = 1e6


@dataclass(frozen=True, slots=True)
class Admitted:
    """The finite rows, how many of them may still be faulty, and their places before."""

    vectors: Tensor
    f: int
    places: tuple[int, ...]


def admit(vectors: Tensor | Sequence[Tensor], f: int = 0) -> Admitted:
    """The rows of [n, d] that are finite; each that is left out counts as one of the f.

    A list of tensors [d] is stacked. Raises LearnerError (layout) when no row is finite, or when
    these are no rows of one length.
    """
    rows = as_rows(vectors)
    # A sum over something that is not finite is not finite: the quick answer for the usual case.
    if bool(torch.isfinite(rows.sum(1)).all()):
        return Admitted(rows, f, tuple(range(len(rows))))
    finite = mixing.finite_rows(rows)
    places = tuple(place for place, fine in enumerate(finite) if fine)
    if not places:
        raise LearnerError(
            "layout",
            f"none of the {len(rows)} vectors is finite, so there is nothing to aggregate: lower "
            "the learning rate, or look for the step that made them NaN",
        )
    left_out = len(rows) - len(places)
    kept = rows if not left_out else rows[list(places)]
    return Admitted(kept, max(0, f - left_out), places)


def admit_by_norm(
    vectors: Tensor | Sequence[Tensor], f: int = 0, point: Tensor | None = None
) -> tuple[Admitted, Tensor]:
    """As `admit`, and the `norms` of what it admits: one pass where all rows are finite."""
    rows = as_rows(vectors)
    lengths = norms(rows, point)
    if bool(torch.isfinite(lengths).all()):
        return Admitted(rows, f, tuple(range(len(rows)))), lengths
    admitted = admit(rows, f)
    return admitted, norms(admitted.vectors, point)


def as_rows(vectors: Tensor | Sequence[Tensor]) -> Tensor:
    """float32 [n, d] from [n, d] or a list of [d]. Raises LearnerError (layout) otherwise."""
    if not isinstance(vectors, Tensor):
        shapes = {tuple(vector.shape) for vector in vectors}
        if len(shapes) != 1:
            raise LearnerError("layout", f"vectors of one length belong here, not {sorted(shapes)}")
        vectors = torch.stack(list(vectors))
    if vectors.dim() != 2 or not len(vectors):
        shape = list(vectors.shape)
        raise LearnerError("layout", f"vectors [n, d] with n ≥ 1 belong here, not {shape}")
    return vectors.detach().float()


class TooFew(LearnerError):
    """There are fewer vectors than a rule's f asks for."""

    def __init__(self, message: str) -> None:
        super().__init__("job", message)


def check_minority(rule: str, f: int, vectors: Tensor | Sequence[Tensor]) -> None:
    """Raises TooFew (job) unless 2 f < n: no rule can tell which half is honest."""
    if 2 * f >= len(vectors):
        raise TooFew(
            f"{rule}: f = {f} of {len(vectors)} vectors is half or more; it needs at least "
            f"{2 * f + 1} vectors, or f ≤ {(len(vectors) - 1) // 2}",
        )


@dataclass(frozen=True, slots=True)
class Gram:
    """Inner products relative to the row `reference` and squared distances: float64 [n, n]."""

    products: Tensor
    squares: Tensor
    reference: int


def gram(vectors: Tensor, *, point: Tensor | None = None) -> Gram:
    """Of the finite rows [n, d]; a `point` [d] becomes one more row, the last."""
    rows, reference = len(vectors), 0
    for _ in range(rows):
        products = _products(vectors, point, reference)
        squares = _squares(products)
        middle = squares[:rows, :rows].median(1).values
        centre = int(middle.argmin())
        if squares[reference, centre] <= RESOLUTION * middle[centre]:
            break
        reference = centre  # the old one lies far off, and the crowd is a blur from there
    return Gram(products, squares, reference)


def projections(vectors: Tensor, direction: Tensor, reference: int) -> Tensor:
    """⟨x_i − x_reference, direction⟩ for every i: float64 [n]."""
    found = torch.zeros(len(vectors), dtype=torch.float64)
    with one_thread():
        for columns, chunk in _doubles(vectors, None, reference):
            found += chunk @ direction[columns].double()
    return found


def norms(vectors: Tensor, point: Tensor | None = None) -> Tensor:
    """‖x_i − point‖ for every i, the point being the origin if None: float64 [n].

    To float32's rounding, with all threads, unless squares overflow or vanish in it.
    """
    if point is None:
        found: Tensor = torch.linalg.vector_norm(vectors, dim=1).double()
    else:
        squares = torch.zeros(len(vectors), dtype=torch.float64)
        buffer = torch.empty(len(vectors), min(QUICK_COLUMNS, len(point)))
        for start in range(0, len(point), QUICK_COLUMNS):
            columns = slice(start, start + QUICK_COLUMNS)
            away = buffer[:, : len(point) - start]
            torch.sub(vectors[:, columns], point[columns], out=away)
            squares += torch.linalg.vector_norm(away, dim=1).double().square_()
        found = squares.sqrt_()
    # The squares in float32 are 1e±38 at most.
    doubtful = ~((found > 1e-15) & (found < 1e18))
    for place in doubtful.nonzero().flatten().tolist():
        found[place] = _exact_norm(vectors[place], point)
    return found


def squares_from(products: Tensor, weights: Tensor) -> Tensor:
    """‖x_i − y‖² for every row i and y = Σ w_i x_i, Σ w_i = 1: float64 [n]."""
    towards: Tensor = products @ weights
    squares: Tensor = products.diagonal() - 2 * towards + weights @ towards
    return squares.clamp_(min=0)


def combine(weights: Tensor, vectors: Tensor) -> Tensor:
    """Σ w_i x_i, a new float32 [d]; for weights [m, n], m of them: [m, d]."""
    combined: Tensor = weights.to(vectors.dtype) @ vectors
    return combined


def mean_of(places: Sequence[int] | Tensor, vectors: Tensor) -> Tensor:
    """The mean of the rows at these places, a new float32 [d]."""
    return combine(share(places, len(vectors)), vectors)


def share(places: Sequence[int] | Tensor, rows: int) -> Tensor:
    """float64 [rows]: one over their number at these places, zero elsewhere."""
    weights = torch.zeros(rows, dtype=torch.float64)
    weights[torch.as_tensor(places, dtype=torch.long)] = 1 / len(places)
    return weights


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's operations in this thread do not start others until the end of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _products(vectors: Tensor, point: Tensor | None, reference: int) -> Tensor:
    rows = len(vectors) + (point is not None)
    found = torch.zeros(rows, rows, dtype=torch.float64)
    with one_thread():
        for _, chunk in _doubles(vectors, point, reference):
            found.addmm_(chunk, chunk.T)
    return found


def _exact_norm(vector: Tensor, point: Tensor | None) -> float:
    parts = [
        vector[start : start + QUICK_COLUMNS].double()
        - (0 if point is None else point[start : start + QUICK_COLUMNS])
        for start in range(0, len(vector), QUICK_COLUMNS)
    ]
    return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts))


def _squares(products: Tensor) -> Tensor:
    own = products.diagonal()
    squares = (own[:, None] + own - 2 * products).clamp_(min=0)
    squares = torch.minimum(squares, squares.T)  # to the last bit as far there as back
    squares.fill_diagonal_(0)
    return squares


def _doubles(
    vectors: Tensor, point: Tensor | None, reference: int
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of columns as float64 [n, ≤ CHUNK_COLUMNS], less the reference row, in one buffer."""
    rows, values = len(vectors), vectors.shape[1]
    step = min(values, CHUNK_COLUMNS)
    buffer = torch.empty(rows + (point is not None), step, dtype=torch.float64)
    for start in range(0, values, max(1, step)):
        columns = slice(start, min(start + step, values))
        chunk = buffer[:, : columns.stop - start]
        chunk[:rows] = vectors[:, columns]
        if point is not None:
            chunk[rows] = point[columns]
        chunk -= chunk[reference].clone()
        yield columns, chunk
