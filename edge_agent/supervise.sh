#!/bin/sh
# What the container of an agent runs below its init: `supervise agent OPTIONS...` keeps an agent running.
#
# Rule: the container lives until it is asked to end, and not as long as its agent. So keeper, stream worker and jobs,
# which the kernel ends with the container, outlive an agent that dies, and the next one takes them over.
# 1. SIGTERM and SIGINT go to the agent; when that has ended, so does the container.
# 2. An agent that ends by itself with status 0 has done what it was asked to.
# 3. An agent that refuses its first start (status 2; 4 for another version) needs a remedy, and nothing depends on it yet.
# 4. Any other end is followed by another start, two seconds later. A signal in between ends the container, too.
# Other words than `agent` are a command of `shoal`, which takes the place of this script.
set -u
if [ "${1:-agent}" != agent ]; then
  exec shoal "$@"
fi

agent=
stopping=
stop() {
  stopping=yes
  [ -z "$agent" ] || kill -TERM "$agent" 2>/dev/null
}
trap stop TERM INT

starts=0
while [ -z "$stopping" ]; do
  starts=$((starts + 1))
  shoal "$@" &
  agent=$!
  [ -z "$stopping" ] || kill -TERM "$agent" 2>/dev/null # a signal that came before there was an agent
  wait "$agent"
  status=$?
  # A signal to this script ends a wait before the agent has ended.
  while kill -0 "$agent" 2>/dev/null; do
    wait "$agent"
    status=$?
  done
  agent=
  [ -z "$stopping" ] || exit "$status"
  case $starts:$status in
    *:0 | 1:2 | 1:4) exit "$status" ;;
  esac
  why=
  [ "$status" -ne 137 ] || why=" (killed; where nobody did that, the container has too little memory)"
  echo "the agent has ended with status $status$why; its keeper and its jobs go on, and another one is started" >&2
  sleep 2 &
  wait $!
done
exit 0
