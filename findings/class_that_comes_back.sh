#!/usr/bin/env bash
# cloudpickle: an instance that comes back changes the class that it is of.
#
# A class of a notebook (or of __main__) travels by value, with an id, so that what comes back is of the very class that
# was sent. A user would expect that class to be left as it is. But unpickling gives it the attributes that came along:
# its methods are now copies, whose global names are a copy too. A constant that is changed afterwards in the notebook, or a
# function that is defined anew, is not seen by the methods any more, without a word.
#
# Exits 0 while that is so; non-zero when the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q cloudpickle==3.1.2 2>/dev/null
cat > "$work/notebook.py" <<'PY'
import cloudpickle

FACTOR = 2


class Total:
    def times(self, x):
        return x * FACTOR


method = Total.times
instance = cloudpickle.loads(cloudpickle.dumps(Total()))  # as a worker sends its result back
print("cloudpickle", cloudpickle.__version__)
print("the same class:", type(instance) is Total)
print("with its own method:", Total.times is method)
FACTOR = 100
print("times(1) with FACTOR = 100:", Total().times(1))
PY
"$work/venv/bin/python" "$work/notebook.py" | tee "$work/said"
diff "$work/said" - <<'SAID'
cloudpickle 3.1.2
the same class: True
with its own method: False
times(1) with FACTOR = 100: 2
SAID
