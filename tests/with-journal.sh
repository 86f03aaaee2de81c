#!/bin/sh
# Runs a command with a journal of its own, in a mount namespace of its own:
#     unshare --mount tests/with-journal.sh COMMAND...
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nRateLimitIntervalSec=0\n' > /run/systemd/journald.conf.d/test.conf
# What it says about itself is of no interest.
/lib/systemd/systemd-journald > /dev/null 2>&1 &
journald=$!
trap 'kill $journald; wait' EXIT
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do
    kill -0 $journald
    sleep 0.05
done
"$@"
