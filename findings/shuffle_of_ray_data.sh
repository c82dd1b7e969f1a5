#!/usr/bin/env bash
# Ray Data's random_shuffle reaches few of all orders, and with a seed all of its blocks are in one order.
#
# What a user would expect: `dataset.random_shuffle()` puts the rows in an order drawn from all, as its documentation says ("Randomly
# shuffle the rows of this Dataset"); with `seed=` in one that is the same each time.
# What happens: each block is permuted and cut into equal slices, one for each block of the result. So of every input block each output
# block gets exactly as many rows (chi squared of the table is 0, where 225 ± 21 is what chance gives): most orders never come. And
# with a seed, the rows of every output block are permuted by the same permutation: at each place in it the rows of all blocks come from
# the same input block.
# Who trains on it as if it were uniform sees batches that are more alike than chance makes them.
# Seen with Python 3.11 and ray 2.60.0. Exits non-zero if that is no longer so.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "ray[data]==2.60.0" numpy==2.4.6
cd "$work"
RAY_DATA_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PY'
import logging

import numpy as np
import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ray.data.DataContext.get_current().enable_progress_bars = False
ROWS, BLOCKS = 65_536, 16


def shuffled(seed):
    data = ray.data.range(ROWS, override_num_blocks=BLOCKS).random_shuffle(seed=seed).materialize()
    found = [np.asarray(block["id"]) for bundle in data.iter_internal_ref_bundles()
             for block in ray.get(list(bundle.block_refs))]
    assert sorted(np.concatenate(found).tolist()) == list(range(ROWS))
    return [block * BLOCKS // ROWS for block in found]  # where each row was


def chi_squared(table):
    expected = table.sum() / table.size
    return ((table - expected) ** 2 / expected).sum()


print("ray", ray.__version__)
for seed in (None, 7, 8):
    blocks = shuffled(seed)
    table = np.array([np.bincount(block, minlength=BLOCKS) for block in blocks])
    alike = all(np.array_equal(block, blocks[0]) for block in blocks)
    print(f"seed {seed}: {len(blocks)} blocks, chi squared {chi_squared(table):.2f} (225 by chance), one order in all: {alike}")
    assert chi_squared(table) == 0, "the slices are no longer equal"
    assert alike or seed is None, "blocks are no longer in one order"
honest = np.random.default_rng(0).permutation(ROWS).reshape(BLOCKS, -1) * BLOCKS // ROWS
fair = chi_squared(np.array([np.bincount(block, minlength=BLOCKS) for block in honest]))
print(f"NumPy's permutation: chi squared {fair:.0f}")
assert 140 < fair < 310
ray.shutdown()
print("as described")
PY
