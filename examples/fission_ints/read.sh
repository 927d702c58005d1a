# Compiles reader.c where there is a compiler, and reads the port whose descriptor is the first argument.
set -e
if cc -O2 -o reader reader.c 2>/dev/null; then
    ./reader "$1" > results/numbers.txt
else
    python reader.py "$1" > results/numbers.txt
fi
