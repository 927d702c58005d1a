# Compiles square.c where there is a compiler; its arguments are two paths, which happen to be FIFOs.
set -e
if cc -O2 -o square square.c 2>/dev/null; then
    exec ./square "$@"
else
    exec python square.py "$@"
fi
