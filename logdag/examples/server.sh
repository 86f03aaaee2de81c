#!/bin/sh
for i in 1 2 3; do
  echo "{\"message\": \"request\", \"path\": \"/page/$i\", \"status\": $((i * 250 - 50)), \"took\": 0.0$i}"
done
echo "shutting down" >&2
exit 7
