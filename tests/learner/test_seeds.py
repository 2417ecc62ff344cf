import subprocess
import sys

import torch

from learner import seeds


def test_equal_words_give_equal_draws():
    first, second = (seeds.generator(1, 2, "batches") for _ in range(2))
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


def test_seed_part_and_purpose_all_matter():
    words = [(s, p, w) for s in (0, 1, 11) for p in (-1, 0, 1, 11) for w in ("a", "b")]
    assert len({seeds.integer(*word) for word in words}) == len(words)


def test_the_derivation_is_the_same_in_every_process():
    code = "from learner import seeds; print(seeds.integer(7, 3, 'batches'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == seeds.integer(7, 3, "batches")
