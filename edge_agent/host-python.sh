#!/bin/sh
# Runs the board's own Python inside a container: `host-python PROGRAM ARGUMENTS...`.
#
# Why: NVIDIA's TensorRT for JetPack 4 is a package of the board's Python 3.6, and its libraries are those of the board.
# Rule: everything that this Python loads comes from the board, its C library and its loader too. A program of another
#   Linux, started by the loader of the container, would mix both: `_ctypes` of JetPack asks for another libffi.
# How: /usr and /lib of the board are mounted below /host (HOST_ROOT names another place). The board's loader gets
#   the board's folders. It takes libraries from these first, and Python finds its modules beside itself.
# Limits: links into /etc/alternatives lead nowhere here, so what they choose from is named. `sys.executable`
#   is started by the loader of the container: use os.fork, and not a new Python.
# Source: ld.so(8), on starting a program through the loader.
set -u
host=${HOST_ROOT:-/host}
loader=
for file in "$host"/usr/lib/*-linux-gnu/ld-linux-*.so.* "$host"/lib/*-linux-gnu/ld-linux-*.so.*; do
  [ -x "$file" ] && loader=$file
done
if [ -z "$loader" ] || [ ! -x "$host/usr/bin/python3" ]; then
  echo "host-python: the board's Python is not at $host/usr/bin/python3 with its loader in $host/lib: start the" \
    "container with --volume /usr:$host/usr:ro --volume /lib:$host/lib:ro" >&2
  exit 127
fi
folders=
for folder in "$host"/usr/local/cuda/lib64 "$host"/usr/lib/*-linux-gnu/tegra "$host"/lib/*-linux-gnu \
  "$host"/usr/lib/*-linux-gnu "$host"/usr/lib/*-linux-gnu/blas "$host"/usr/lib/*-linux-gnu/lapack; do
  [ -d "$folder" ] && folders=$folders:$folder
done
exec "$loader" --library-path "${folders#:}" "$host/usr/bin/python3" "$@"
