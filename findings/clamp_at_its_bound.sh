#!/usr/bin/env bash
# torch 2.14.1: the gradient of `clamp` at a value that is exactly at a bound is 0, where up to 2.13 it was 1.
#
# So to clip twice is no longer the same as to clip once: all that the first clips has, at the second, no gradient any more. Who clips
# a value to look at what a model goes on with (OLMo, MPT and DBRX clip queries, keys and values) and hands it back to the model, which clips it again,
# measured the gradient of the model with 2.13 and measures 0 wherever it was clipped with 2.14. `hardtanh`, which says of itself that it clips, had 0 before; a
# single bound (`clamp(max=…)`) changed as well, and `minimum` still has half.
#
# Seen with Python 3.11, on the CPU: gradients of [-2, -1, 0, 1, 2] clipped to ±1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import json
import sys

import torch

ways = {
    "once": lambda x: x.clamp(-1, 1),
    "twice": lambda x: x.clamp(-1, 1).clamp(-1, 1),
    "one bound": lambda x: x.clamp(max=1),
    "hardtanh": torch.nn.functional.hardtanh,
    "minimum": lambda x: torch.minimum(x, torch.tensor(1.0)),
}
told = {"version": torch.__version__.partition("+")[0]}
for name, way in ways.items():
    x = torch.tensor([-2.0, -1, 0, 1, 2], requires_grad=True)
    way(x).sum().backward()
    told[name] = x.grad.tolist()
clipped = torch.tensor([-2.0, -1, 0, 1, 2], requires_grad=True)
middle = clipped.clamp(-1, 1)
middle.retain_grad()
middle.clamp(-1, 1).sum().backward()
told["between two"] = middle.grad.tolist()
print(json.dumps(told))
PYTHON
for version in 2.13.0 2.14.1; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "torch==$version" numpy
  "$folder/$version/bin/python" "$folder/look.py" > "$folder/$version.json"
  cat "$folder/$version.json"
done
python3 - "$folder" <<'PYTHON'
import json
import sys

before, since = (json.load(open(f"{sys.argv[1]}/{version}.json")) for version in ("2.13.0", "2.14.1"))
assert before["once"] == [0, 1, 1, 1, 0] and since["once"] == [0, 0, 1, 0, 0]
assert before["between two"] == [1, 1, 1, 1, 1] and since["between two"] == [0, 0, 1, 0, 0]
assert before["one bound"] == [1, 1, 1, 1, 0] and since["one bound"] == [1, 1, 1, 0, 0]
assert before["hardtanh"] == since["hardtanh"] == [0, 0, 1, 0, 0]
assert before["minimum"] == since["minimum"] == [1, 1, 1, 0.5, 0]
print("as described")
PYTHON
