#!/usr/bin/env bash
# Runs a command beside a nats-server on port 4333 (its figures are on port 8333) that has a stream ORDERS.
set -euo pipefail

directory=$(mktemp -d)
nats-server -js -sd "$directory" -a 127.0.0.1 -p 4333 -m 8333 -l "$directory/log" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$directory"' EXIT

for _ in $(seq 100); do
    { exec 3<>/dev/tcp/127.0.0.1/4333; } 2>/dev/null && break
    sleep 0.1
done
stream='{"name":"ORDERS","subjects":["orders.*"]}'
printf 'CONNECT {"verbose":false}\r\nSUB done 1\r\nPUB $JS.API.STREAM.CREATE.ORDERS done %d\r\n%s\r\n' \
    ${#stream} "$stream" >&3
while read -r -t 10 -u 3 line && [[ $line != MSG* ]]; do :; done
exec 3>&-

"$@"
