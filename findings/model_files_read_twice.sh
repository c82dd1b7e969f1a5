#!/usr/bin/env bash
# transformers 5.24.0: to know what its model files define, an import reads all of them, and does so twice.
#
# `transformers/__init__.py` walks through the folder of models, and `transformers/models/__init__.py` does so again. The function
# for one folder is cached, by `functools.lru_cache` without a size, which keeps the last 128; there are more than 500 folders, and
# the second walk, in the same order, finds none of its own. With a cache that holds all of them the import, without
# torch, took 0.58 of the time (printed, and not held).
#
# Seen with Python 3.11 and transformers 5.24.0: each of 1,698 files is opened twice; with a cache of any size, once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
cat > "$folder/look.py" <<'PYTHON'
import collections
import functools
import json
import sys
import time

bounded = functools.lru_cache
if sys.argv[1] == "all":

    def lru_cache(maxsize=128, typed=False):
        return bounded(maxsize=None)(maxsize) if callable(maxsize) else bounded(maxsize, typed)

    functools.lru_cache = lru_cache

opened = collections.Counter()
sys.addaudithook(lambda event, args: opened.update([str(args[0])]) if event == "open" else None)
start = time.perf_counter()
import transformers
import transformers.models

taken = time.perf_counter() - start
models = [n for file, n in opened.items() if "/transformers/models/" in file and file.endswith(".py")]
times = dict(collections.Counter(models))
print(json.dumps({"version": transformers.__version__, "files": len(models), "times": times, "seconds": taken}))
PYTHON
cd "$folder"
for caches in as_they_are all as_they_are all; do  # the first of each compiles
  venv/bin/python look.py "$caches" 2>/dev/null | tail -1 > "$caches.json"
done
venv/bin/python - <<'PYTHON'
import json

told = {name: json.load(open(f"{name}.json")) for name in ("as_they_are", "all")}
for name, one in told.items():
    print(name, one)
print(f"with caches that hold all: {told['all']['seconds'] / told['as_they_are']['seconds']:.2f} of the time")
usual, unbounded = told["as_they_are"], told["all"]
assert usual["version"] == "5.24.0" and usual["files"] == unbounded["files"] > 1500
most = max(usual["times"], key=usual["times"].get)
assert most == "2" and usual["times"]["2"] > 0.95 * usual["files"], "each file is no longer read twice"
assert set(unbounded["times"]) == {"1"}, "a cache of any size no longer mends it"
print("as described")
PYTHON
