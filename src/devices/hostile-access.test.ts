import { describe, expect, it } from 'vitest';
import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import { A20Gate } from './a20-gate.ts';
import { AcpiPm } from './acpi-pm.ts';
import { ManualClock } from './clock.ts';
import { DebugConsole, DebugExit, PostCodePort, SystemControlPortA } from './debug-ports.ts';
import { ES7000_PSAI_BYTES, Es7000Psai } from './es7000-mip.ts';
import { FwCfg } from './fw-cfg.ts';
import { Hpet } from './hpet.ts';
import { I8042 } from './i8042.ts';
import { PciFunction } from './pci-function.ts';
import { PciHost } from './pci-host.ts';
import { NumachipCsr } from './numachip-csr.ts';
import { Pit8254 } from './pit-8254.ts';
import { PmTimer } from './pm-timer.ts';
import { ResetControl } from './reset-control.ts';
import { RtcCmos } from './rtc-cmos.ts';
import { Uart16550 } from './uart-16550.ts';
import { UvHubs } from './uv-hub.ts';

const ACCESSES = 20_000;
const nothing = () => {};
const line = { set: nothing };

/** xorshift32: the same accesses every time. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

interface Target {
  name: string;
  /** Bytes of address space; accesses stay within a few bytes of its end, as wide ones can. */
  size: number;
  build(clock: ManualClock): BusDevice;
}

const i8042 = () => new I8042({ keyboardLine: line, auxiliaryLine: line, a20: new A20Gate(), onReset: nothing });
const acpi = (clock: ManualClock) => new AcpiPm({ clock, pmTimer: new PmTimer(clock), line, onSleep: nothing });
const both = (data: BusDevice, command: BusDevice): BusDevice => ({
  read: (offset, bytes) => (offset & 1 ? command : data).read(0, bytes),
  write: (offset, bytes, value) => (offset & 1 ? command : data).write(0, bytes, value),
});

const expectBytes = (...values: number[]): void => {
  for (const value of values) if (!(value >= 0 && value <= 0xff)) expect.fail(`${value} is no byte`);
};
const expectInterrupt = ({ vector, deliveryMode }: { vector: number; deliveryMode: number }): void =>
  expectBytes(vector, deliveryMode);
const hubs = () => new UvHubs({ pnodes: 3, pnode: () => 2, send: expectInterrupt });

const targets: Target[] = [
  { name: 'uart', size: 8, build: (clock) => new Uart16550({ clock, line, onTransmit: nothing }) },
  { name: 'paced uart', size: 8, build: (clock) => new Uart16550({ clock, line, onTransmit: nothing, pacing: 'baud' }) },
  { name: 'pit', size: 4, build: (clock) => new Pit8254({ clock, line }) },
  {
    name: 'counter 2 and port B',
    size: 4,
    build: (clock) => {
      const pit = new Pit8254({ clock, line });
      return {
        read: (offset, bytes) => (offset === 0 ? pit.controlPortB.read(0, bytes) : pit.read(offset, bytes)),
        write: (offset, bytes, value) =>
          offset === 0 ? pit.controlPortB.write(0, bytes, value) : pit.write(offset, bytes, value),
      };
    },
  },
  { name: 'rtc', size: 2, build: (clock) => new RtcCmos({ clock, line }) },
  {
    name: 'hpet',
    size: 0x180,
    build: (clock) => new Hpet({ clock, lines: Array.from({ length: 24 }, () => line), irq0: line, irq8: line }),
  },
  { name: 'pm1 events', size: 4, build: (clock) => acpi(clock).pm1Event },
  { name: 'pm1 control', size: 2, build: (clock) => acpi(clock).pm1Control },
  { name: 'gpe0', size: 4, build: (clock) => acpi(clock).gpe0 },
  { name: 'pm timer', size: 4, build: (clock) => new PmTimer(clock) },
  {
    name: 'i8042',
    size: 2,
    build: () => {
      const controller = i8042();
      return both(controller.dataPort, controller.commandPort);
    },
  },
  {
    name: 'pci',
    size: 8,
    build: () => {
      const host = new PciHost(new ResetControl(nothing));
      const bars = [{ index: 0, kind: 'memory64', bytes: 0x4000 } as const, { index: 2, kind: 'io', bytes: 64 } as const];
      host.attach(1, 0, new PciFunction({ vendorId: 1, deviceId: 2, classCode: 0 }, bars));
      return host;
    },
  },
  { name: 'fw_cfg', size: 2, build: () => new FwCfg({ ramBytes: 2 ** 20, cpuCount: 1 }) },
  {
    name: 'fw_cfg DMA',
    size: 8,
    build: () =>
      new FwCfg({ ramBytes: 2 ** 20, cpuCount: 1, memory: new GuestMemory({ ramBytes: 2 ** 20 }) }).dmaPort as BusDevice,
  },
  { name: 'POST code', size: 1, build: () => new PostCodePort() },
  { name: 'debug console', size: 1, build: () => new DebugConsole(nothing) },
  { name: 'port A', size: 1, build: () => new SystemControlPortA(new A20Gate(), nothing) },
  {
    name: "NumaChip's registers",
    size: 0x1_0000,
    build: () => new NumachipCsr({ node: () => 1, send: expectInterrupt }),
  },
  { name: 'the hub of this blade', size: 0x60_0600, build: () => hubs().local },
  { name: 'all hubs, 32-bit registers', size: hubs().global32Bytes, build: () => hubs().global32 },
  { name: 'all hubs, 64-bit registers', size: hubs().global64Bytes, build: () => hubs().global64 },
  { name: 'PSAI', size: ES7000_PSAI_BYTES, build: () => new Es7000Psai((apicId, page) => expectBytes(apicId, page)) },
  { name: 'debug exit', size: 4, build: () => new DebugExit(nothing) },
];

describe.each(targets)('random accesses to $name', ({ size, build }) => {
  it.each([1, 2, 3])('read as numbers of their width and break nothing (seed %i)', (seed) => {
    const random = randomFrom(seed * 0x9e37_79b9);
    const clock = new ManualClock();
    const device = build(clock);
    for (let i = 0; i < ACCESSES; i++) {
      const bytes = [1, 2, 4][random(3)] as AccessBytes;
      const offset = random(size);
      if (random(2)) device.write(offset, bytes, random(4) ? random(2 ** 32) % 2 ** (8 * bytes) : random(256));
      else {
        const value = device.read(offset, bytes);
        if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * bytes))
          expect.fail(`${value} at ${offset}, ${bytes} bytes`);
      }
      if (random(8) === 0) clock.advanceTo(clock.now() + random(20_000));
    }
    expect(Number.isFinite(clock.now())).toBe(true);
  });
});
