#!/bin/sh
# Stands for a daemon that logs events as structlog prints them.
cat >&2 <<'END'
{"event":"daemon.startup.ready","level":"info","timestamp":"2026-06-08T09:00:00.000001Z","port":8765}
{"event":"attribution.resolved","level":"info","timestamp":"2026-06-08T09:00:07.120433Z","project":"shop","winning_layer":"header"}
{"event":"intercept.start","level":"info","timestamp":"2026-06-08T09:00:07.120871Z","project":"shop","prompt":"my card is 4111 1111"}
{"event":"intercept.complete","level":"info","timestamp":"2026-06-08T09:00:08.963002Z","project":"shop","duration_ms":1842.1,"response":{"status":200,"body":"do not tell me"}}
{"event":"attribution.resolved","level":"info","timestamp":"2026-06-08T09:01:30.000219Z","project":"blog","winning_layer":"cwd"}
{"event":"intercept.complete","level":"info","timestamp":"2026-06-08T09:01:30.310027Z","project":"blog","duration_ms":309.8,"response":{"status":200,"body":"nor this"}}
{"event":"edge.sidecar_regen_requested","level":"warning","timestamp":"2026-06-08T09:02:00.000440Z","reason":"stale"}
{"event":"intercept.fail","level":"error","timestamp":"2026-06-08T09:02:11.871105Z","project":"blog","status":502}
END
