#!/bin/sh
# Stands for the application: the events of one turn of a chat, which take as many milliseconds as its argument says.
cat <<END
{"event":"user.request","session":"a1","content":"where does it hurt?"}
{"event":"agent.payload","session":"a1","model":"gpt-4o-mini","payload":{"input":"where does it hurt?","tokens":212}}
{"event":"stream.event","session":"a1","chunk":1}
{"event":"agent.response","session":"a1","latency_ms":$1,"knowledge_hits":3,"used_fallback":false,"content":"here"}
{"event":"agent.fail","level":"error","session":"a1","selected_members":["researcher","writer"],"why":"no such tool"}
END
