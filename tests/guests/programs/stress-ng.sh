#!/bin/sh
# stress-ng's stressors that check what they compute: each operation is done and verified so many times, then the next.
# usage: stress-ng.sh CPUS
cpus=${1:-1}
failed=0
stress() {
  # The same random numbers each time, and no limit of time that a slow host would meet.
  if ! stress-ng --seed 1 --verify --timeout 0 --quiet "$@"; then
    echo "FAILED: $*"
    failed=1
    return
  fi
  echo "passed: $1 $3 $4"
}
stress --cpu $cpus --cpu-ops $((85 * cpus)) --cpu-method all
for stressor in fp:60 vecmath:20 vecwide:20 vecfp:20 matrix:60 matrix-3d:20 crypt:4 hash:60 str:40 wcs:20 qsort:2 heapsort:2 mergesort:2 \
  bsearch:10 hsearch:10 lsearch:2 tsearch:10 radixsort:2 skiplist:4 tree:2 zlib:4 cache:100 vm:20 memcpy:20 stream:2 \
  shellsort:2 judy:2 prefetch:20 randlist:2 nop:20 jpeg:2 sparsematrix:2 stackmmap:2 longjmp:2000 switch:2000 \
  pipe:2000 futex:2000 mutex:2000 fork:50 signal:2000 ; do
  name=${stressor%:*}
  stress --$name $cpus --$name-ops $((${stressor#*:} * cpus))
done
# Of this one a limit of operations ends the threads but not the stressor, on any machine.
stress --sem $cpus --sem-ops $((2000 * cpus)) --timeout 2
exit $failed
