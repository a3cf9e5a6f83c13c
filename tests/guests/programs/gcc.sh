#!/bin/sh
# Compiles what it is given, with and without optimization, and runs it. usage: gcc.sh SOURCE...
cd /tmp
for source in "$@"; do
  for level in -O0 -O2; do
    name="$(basename $source) $level"
    gcc $level -S -o program.s $source && gcc -o program program.s -lm || exit 1
    echo "$name assembly $(grep -v '\.file' program.s | sha256sum | cut -c1-64)"
    ./program >output || exit 1
    echo "$name output $(sha256sum <output | cut -c1-64)"
  done
done
