#!/bin/sh
# All tests in two halves, side by side: those that start processes or wait, and those that run in one process, with one thread.
# The second half prints while it runs, the first when both are done.
#
#   sh tests/all.sh PYTHON [OPTION OF PYTEST …]
python=$1
shift
told=$(mktemp)
"$python" -m pytest --only processes --durations=25 "$@" > "$told" 2>&1 &
beside=$!
trap 'kill -INT $beside; wait $beside; cat "$told"; rm -f "$told"; exit 130' INT TERM
OMP_NUM_THREADS=1 "$python" -m pytest --only in-process --durations=25 "$@"
here=$?
wait $beside
there=$?
cat "$told"
rm -f "$told"
[ $here -eq 0 ] && [ $there -eq 0 ]
