import { describe, expect, it } from 'vitest';
import { expectDriverWorks, runKernel } from '../../../tests/tiny-kernel-bench.ts';
import { CSR_G0_NODE_IDS, NUMACHIP_CSR_NON_GEO } from '../../devices/numachip-csr.ts';
import { UV_LOCAL_MMR_BASE, UVH_NODE_ID } from '../../devices/uv-hub.ts';
import { platformOf } from '../../experiment/driver-platform.ts';
import { ApicRegister } from '../../interrupts/apic-registers.ts';
import { Machine } from '../../machine/machine.ts';
import type { PlatformName } from '../../machine/platforms/all.ts';
import { DRIVER_NAMES, type DriverName } from '../apic/apic-driver.ts';
import { EOI_STATES } from '../apic/driver-code.ts';
import { callMethod } from '../apic/native-access.ts';
import { address, dword, eax, rax } from '../assembler/operands.ts';
import { buildKernel, type ProgramKit } from './kernel.ts';

/** The whole matrix, up to 24 vCPUs, is `npm run test:drivers`. */
describe.each(DRIVER_NAMES)('%s on its platform', (driver) => {
  it.each([1, 2, 4])('with %i vCPUs: every interrupt delivered, handled and ended once, in every state', (vcpus) => {
    for (const state of EOI_STATES) expectDriverWorks(driver, state, vcpus);
  });
});

describe('a processor of the second board', () => {
  const OWN = 0x71;
  /** What the CPU at `position` reads as its APIC ID by the driver, and as its board's number in the board's own registers. */
  const ask = (driver: DriverName, position: number, board: (kit: ProgramKit) => void): string[] => {
    const { report } = runKernel(
      {
        driver,
        workloads: {},
        variables: ['id', 'board', 'answered'],
        handlers: {
          [OWN]: (kit) => {
            const { a, abi, acknowledge } = kit;
            a.mov(abi.arguments32[0], ApicRegister.id);
            callMethod(a, abi, 'read');
            a.mov(abi.arguments32[0], eax);
            callMethod(a, abi, 'getApicId');
            a.mov(dword('id'), eax);
            board(kit);
            a.mov(dword('board'), eax);
            a.mov(dword('answered'), 1);
            a.jmp(acknowledge);
          },
        },
        program: ({ a, abi, say }) => {
          a.mov(abi.arguments32[0], address('cpu_bit_masks', position * abi.word));
          a.mov(abi.arguments32[1], OWN);
          callMethod(a, abi, 'sendIpiMask');
          a.label('.wait').pause().cmp(dword('answered'), 0).je('.wait');
          say('id=', dword('id'), ' board=', dword('board'));
        },
      },
      position + 1,
      { platform: platformOf(driver) },
    );
    return report.notes;
  };

  it('of NumaConnect: its server is in front of its APIC ID, and in the chip that it asks', () => {
    const nodeIds = NUMACHIP_CSR_NON_GEO + CSR_G0_NODE_IDS;
    const notes = ask('numachip', 5, ({ a }) => a.mov(eax, dword(address('MMIO_WINDOW', nodeIds))).bswap(eax).shr(eax, 16));
    expect(notes).toEqual([`id=${0x101} board=1`]);
  });

  it('of UV: its blade is in its x2APIC ID, and in the hub that it asks', () => {
    const notes = ask('x2apic_uv_x', 9, ({ a }) => {
      a.mov(eax, UV_LOCAL_MMR_BASE + UVH_NODE_ID + 4);
      a.mov(eax, dword(rax)).shr(eax, 1);
    });
    expect(notes).toEqual([`id=${0x41} board=1`]);
  });
});

describe('the platforms are what the drivers need', () => {
  const end = (driver: DriverName, platform: PlatformName, vcpus: number): string => {
    const { elf } = buildKernel({ driver, workloads: { timer: 1 } });
    const machine = new Machine({ kernel: elf, vcpus, memoryBytes: 8 * 2 ** 20, platform });
    let output = '';
    machine.serial.onOutput((bytes) => {
      output += new TextDecoder().decode(bytes);
    });
    machine.run({ guestNanoseconds: 1e8 });
    return output.includes('@@ done') ? 'done' : 'not done';
  };

  it.each<[DriverName, PlatformName, number, string]>([
    ['numachip', 'pc', 2, 'no chip to send by'],
    ['x2apic_uv_x', 'pc', 2, 'no hubs'],
    ['es7000', 'pc', 2, 'no register to start processors by'],
    ['numaq', 'pc', 2, 'processors that wait for a start-up message, not for an NMI'],
    ['summit', 'numaq', 2, 'processors that wait for an NMI, not for a start-up message'],
    ['physflat', 'numachip', 5, 'a second server, which an APIC does not reach'],
    ['x2apic_phys', 'uv', 9, 'a second blade, which an APIC does not reach'],
  ])('%s on a %s with %i vCPUs gets nowhere: %s', (driver, platform, vcpus) => {
    expect(end(driver, platform, vcpus)).toBe('not done');
  });

  it.each<[PlatformName, number]>([
    ['visws', 5],
    ['numaq', 61],
    ['summit', 61],
    ['es7000', 33],
  ])('a %s has no %i vCPUs', (platform, vcpus) => {
    expect(() => new Machine({ kernel: new Uint8Array(), vcpus, memoryBytes: 8 * 2 ** 20, platform })).toThrow(/vCPUs, not/);
  });
});
