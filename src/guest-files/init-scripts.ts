/**
 * What the default guests run as /init: a shell on the console, and the workload that strategies are compared with. Both are
 * scripts for busybox, whose shell has most of what they call built in: work is interrupts here, not programs being started.
 */

const MOUNT = `mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts`;

/** The console's driver has time to print what was written. */
const DRAIN = 'sleep 0.1';
const POWER_OFF = `${DRAIN}\npoweroff -f`;

/**
 * An interactive shell; when it ends, the machine powers off. The shell is not the session's leader, because a leader that
 * ends takes what the terminal has not printed yet with it.
 */
export const SHELL_INIT = `#!/bin/sh
${MOUNT}
export PATH=/bin HOME=/root TERM=\${TERM:-vt100} PS1='\\w # '
echo
echo "Linux $(uname -r), $(nproc) CPU(s). Type exit to power off."
cd /root
setsid cttyhack sh -c 'sh; ${DRAIN}'
${POWER_OFF}
`;

/** Where `COMMAND_INIT` finds what to run, and the program that ends the run with a status. */
export const COMMAND_PATH = '/etc/exitless/command';
export const EXIT_PROGRAM_PATH = '/etc/exitless/exit';

/**
 * Runs what the kernel's command line has behind ` -- `, or else the script at `COMMAND_PATH`, or else a shell; then powers off. A
 * status that is not 0 is what the run ends with.
 */
export const COMMAND_INIT = `#!/bin/sh
${MOUNT}
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm
ip link set lo up 2>/dev/null
export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root TERM=\${TERM:-vt100} PS1='\\w # '
cd /root
[ $# = 0 ] && [ -f ${COMMAND_PATH} ] && set -- sh ${COMMAND_PATH}
if [ $# = 0 ]; then
  echo "Linux $(uname -r), $(nproc) CPU(s). Type exit to power off."
  setsid cttyhack sh -c 'sh; ${DRAIN}'
else
  "$@"
fi
status=$?
if [ $status != 0 ]; then
  echo "exit status $status"
  ${DRAIN}
  ${EXIT_PROGRAM_PATH} $status
fi
${POWER_OFF}
`;

/** Rounds of each phase of the workload, unless the command line says `load=N`. */
export const DEFAULT_LOAD = 500;

/**
 * Timer, IPI and serial load, each between `@@ begin NAME` and `@@ end NAME`, all between `@@ start` and `@@ done`. Then
 * /proc/interrupts, and power-off.
 *
 * - timer: on every CPU a process that sleeps 2 ms, `load` times (`read` on a pipe that stays empty).
 * - ipi: on every pair of CPUs two processes that throw a ball through pipes, `load` times to and fro. The CPU that waits
 *   is halted, so each throw is a reschedule IPI. A machine with one CPU only switches between the two.
 * - serial: `load` lines written to the console; the driver's transmit interrupt moves them to the UART.
 */
export const WORKLOAD_INIT = `#!/bin/sh
${MOUNT}
load=\${load:-${DEFAULT_LOAD}}
cpus=$(nproc)

on_cpu() {
  cpu=$1
  shift
  read pid rest </proc/self/stat
  taskset -pc $cpu $pid >/dev/null
  "$@"
}

sleep_often() {
  exec 3<>/tmp/empty$1
  i=0
  while [ $i -lt $load ]; do
    read -t 0.002 line <&3
    i=$((i+1))
  done
}
timer() {
  cpu=0
  while [ $cpu -lt $cpus ]; do
    on_cpu $cpu sleep_often $cpu &
    cpu=$((cpu+1))
  done
  wait
}

throw_first() {
  exec 3>/tmp/to$1 4</tmp/fro$1
  i=0
  while [ $i -lt $load ]; do
    echo >&3
    read ball <&4
    i=$((i+1))
  done
}
catch_first() {
  exec 3</tmp/to$1 4>/tmp/fro$1
  while read ball <&3; do
    echo >&4
  done
}
ipi() {
  cpu=0
  while [ $cpu -lt $cpus ]; do
    on_cpu $((cpu^1 < cpus ? cpu^1 : cpu)) catch_first $cpu &
    on_cpu $cpu throw_first $cpu &
    cpu=$((cpu+2))
  done
  wait
}

serial() {
  i=0
  while [ $i -lt $load ]; do
    echo "line $i"
    i=$((i+1))
  done
}

cpu=0
while [ $cpu -lt $cpus ]; do
  mkfifo /tmp/empty$cpu /tmp/to$cpu /tmp/fro$cpu
  cpu=$((cpu+1))
done
echo "@@ start"
for phase in timer ipi serial; do
  echo "@@ begin $phase"
  $phase
  echo "@@ end $phase"
done
echo "@@ done"
cat /proc/interrupts
${POWER_OFF}
`;
