#!/bin/sh
# All tests in three runs side by side, which take files of one queue (tests/work_queue.py): two begin with the tests that start processes, wait, or judge
# by a clock, which wait more than they work; a third takes the others, with what time of the cores these leave. The first run prints while it
# goes on, the others when all are done.
#
# The runs share the cores, and so do their servers: a thread each, for those of several would wait for one another; and idle threads
# of servers, which have more, sleep at once. What Python compiles it keeps, whatever the environment says: hundreds of processes start.
#
# (--queue=DIR, and not --queue DIR: pytest does not know the option yet when it looks for its settings beside what may be paths.)
#
#   sh tests/all.sh PYTHON [OPTION OF PYTEST …]
python=$1
shift
told=$(mktemp -d)
mkdir "$told/queue"
export OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0
unset PYTHONDONTWRITEBYTECODE
nice -n 19 "$python" -m pytest --only in-process --queue="$told/queue" --durations=10 "$@" > "$told/in-process" 2>&1 &
in_process=$!
"$python" -m pytest --queue="$told/queue" --durations=25 "$@" > "$told/beside" 2>&1 &
beside=$!
end() {
    cat "$told/beside" "$told/in-process"
    rm -rf "$told"
}
trap 'kill -INT $beside $in_process; wait; end; exit 130' INT TERM
"$python" -m pytest --queue="$told/queue" --durations=25 "$@"
first=$?
wait $beside
second=$?
wait $in_process
third=$?
end
[ $first -eq 0 ] && [ $second -eq 0 ] && [ $third -eq 0 ]
