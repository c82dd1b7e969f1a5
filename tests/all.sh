#!/bin/sh
# All tests in three parts, side by side: in two those that start processes, wait, or judge by a clock, which wait more than they
# work; and, with one thread and what time of the cores these leave, those that run in one process. The first part prints while it runs,
# the others when all are done.
#
#   sh tests/all.sh PYTHON [OPTION OF PYTEST …]
python=$1
shift
told=$(mktemp -d)
OMP_NUM_THREADS=1 nice -n 19 "$python" -m pytest --only in-process --durations=10 "$@" > "$told/in-process" 2>&1 &
in_process=$!
"$python" -m pytest --only processes --part 2/2 --durations=25 "$@" > "$told/processes" 2>&1 &
processes=$!
end() {
    cat "$told/processes" "$told/in-process"
    rm -rf "$told"
}
trap 'kill -INT $processes $in_process; wait; end; exit 130' INT TERM
"$python" -m pytest --only processes --part 1/2 --durations=25 "$@"
first=$?
wait $processes
second=$?
wait $in_process
third=$?
end
[ $first -eq 0 ] && [ $second -eq 0 ] && [ $third -eq 0 ]
