#!/bin/sh
# What the tests need of the system and Python cannot bring: installed where that is possible without asking.
# Tests that lack it say so themselves.
set -eu
wanted=""
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || wanted="$wanted $2"; }
need ip iproute2
need sshd openssh-server
need chromium chromium
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || true
    # shellcheck disable=SC2086
    apt-get install -qq --no-install-recommends --yes $wanted >/dev/null || echo "Could not install:$wanted"
else
    echo "Some tests need:$wanted. Install them by the system's own means."
fi
