#!/bin/sh
# All tests in two halves, side by side: those that start processes, wait, or judge by a clock; and, with one thread and what
# time of the cores these leave, those that run in one process. The first half prints while it runs, the second when both are done.
#
#   sh tests/all.sh PYTHON [OPTION OF PYTEST …]
python=$1
shift
told=$(mktemp)
OMP_NUM_THREADS=1 nice -n 19 "$python" -m pytest --only in-process --durations=10 "$@" > "$told" 2>&1 &
beside=$!
trap 'kill -INT $beside; wait $beside; cat "$told"; rm -f "$told"; exit 130' INT TERM
"$python" -m pytest --only processes --durations=25 "$@"
here=$?
wait $beside
there=$?
cat "$told"
rm -f "$told"
[ $here -eq 0 ] && [ $there -eq 0 ]
