#!/bin/sh
# Puts the switches of an application's configuration into force in the process that logs for it:
#     switches.sh CONFIG.json ADDRESS
jq -r '.chat | to_entries[] | select(.key | startswith("log_")) |
       (if .value then "" else "no " end) + "log enable " + .key' "$1" |
while read -r words; do
    # Each word is an argument.
    logdag ctl --http "$2" $words
done
