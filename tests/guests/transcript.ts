/**
 * What a guest printed, without what differs between kernels of one series and from run to run: for comparison with a golden file.
 * Of the kernel's messages those about the machine stay, as these are what we answer for.
 */

/** How messages start that tell what the kernel found. Nothing about mitigations, which come and go with updates. */
const ABOUT_THE_MACHINE = [
  'BIOS-e820',
  'NX ',
  'Notice: NX',
  'Hypervisor',
  'kvm',
  'x2apic',
  'APIC',
  'Using APIC',
  'Switched APIC',
  'IOAPIC',
  'ACPI',
  'TSC',
  'tsc',
  'clocksource',
  'hpet',
  'DMI',
  'Booting paravirtualized',
  'Checking if this processor',
  'Enabling APIC',
  '..TIMER',
  'Calibrating',
  'process:',
  'Last level',
  'x86/',
  'smp',
  'node ',
  'Performance',
  'NMI',
  'PCI',
  'pci',
  'pnp',
  'isapnp',
  'Serial',
  'serial',
  'i8042',
  'serio',
  'input',
  'rtc',
  'IPI',
  'PM: ',
  'Kernel command line',
  'Freeing initrd',
  'Run /init',
  'reboot',
  '0',
];

/** What must never be printed, whatever else is. */
export const COMPLAINTS = /WARNING:|BUG:|Oops|unchecked MSR|Call Trace|general protection|segfault|traps:|soft lockup|rcu:.*stall|irq \d+: nobody cared|failed to/i;

// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
const ESCAPE_SEQUENCES = /\x1b\[[\d;?]*[A-Za-z]/g;
/** What the kernel's messages begin with. */
export const TIMESTAMP = /^\[ *\d+\.\d+\] /;

/** What changes from one update to the next: versions, sizes of the kernel and of what we load, and the time that has passed. */
const normalised = (line: string): string =>
  line
    .replace(/\b\d+\.\d+\.\d+(?:[-+~]\S*?)?(?=[\s,)]|$)/g, 'VERSION')
    .replace(/\(Debian [^)]*\)/g, '(Debian VERSION)')
    .replace(/\b\d+K\b/g, 'SIZE')
    .replace(/(sched offset of) \d+/, '$1 N')
    .replace(/(setting system clock to) .*/, '$1 TIME')
    .trimEnd();

/** One line each, ready for a file. */
export function transcriptOf(output: string): string {
  const lines = output.replace(ESCAPE_SEQUENCES, '').replace(/\r/g, '').split('\n');
  const kept = lines.flatMap((line) => {
    if (!TIMESTAMP.test(line)) return [normalised(line)];
    const message = line.replace(TIMESTAMP, '').trimStart();
    return ABOUT_THE_MACHINE.some((start) => message.startsWith(start)) ? [normalised(message)] : [];
  });
  return `${kept.join('\n').trim()}\n`;
}
