import { describe, expect, it } from 'vitest';
import { DeliveryMode, type InterruptMessage } from '../interrupts/message.ts';
import { KVM_OFF, KVM_ON, type KvmFeature, type KvmFeatureSet } from './features.ts';
import { hypercall } from './hypercall.ts';

const EPERM = 2n ** 64n - 1n;
const ENOSYS = 2n ** 64n - 1000n;

/** Makes a hypercall on a host with APIC IDs 0 to `vcpus` - 1 and records what it did. */
function call(
  nr: number | bigint,
  args: (number | bigint)[] = [],
  options: { cpl?: number; is64Bit?: boolean; kvm?: KvmFeatureSet; vcpus?: number; disabled?: number[] } = {},
) {
  const did: string[] = [];
  const messages: InterruptMessage[] = [];
  const [rbx = 0n, rcx = 0n, rdx = 0n, rsi = 0n] = args.map(BigInt);
  const rax = hypercall({
    registers: { rax: BigInt(nr), rbx, rcx, rdx, rsi },
    cpl: options.cpl ?? 0,
    is64Bit: options.is64Bit ?? true,
    kvm: options.kvm ?? KVM_ON,
    host: {
      kick: (apicId) => did.push(`kick ${apicId}`),
      yieldTo: (apicId) => did.push(`yield ${apicId}`),
      deliver(apicId, message) {
        if (apicId >= (options.vcpus ?? 4) || options.disabled?.includes(apicId)) return false;
        did.push(`ipi ${apicId}`);
        messages.push(message);
        return true;
      },
    },
  });
  return { rax, did, messages };
}
const without = (feature: KvmFeature): KvmFeatureSet => ({
  present: true,
  features: new Set([...KVM_ON.features].filter((name) => name !== feature)),
});

describe('dispatch', () => {
  it.each([1, 2, 3])('CPL %i is refused with -EPERM and nothing happens', (cpl) => {
    expect(call(5, [0, 1], { cpl })).toMatchObject({ rax: EPERM, did: [] });
  });

  it.each([0, 2, 4, 6, 12, 99, 0xffff_ffff])('number %i is unknown: -1000', (nr) => {
    expect(call(nr).rax).toBe(ENOSYS);
  });

  it('the whole of RAX counts in 64-bit mode, its low half elsewhere', () => {
    expect(call(0x1_0000_0001n).rax).toBe(ENOSYS);
    expect(call(0x1_0000_0001n, [], { is64Bit: false }).rax).toBe(0n);
  });

  it('errors have 32 bits outside of 64-bit mode', () => {
    expect(call(99, [], { is64Bit: false }).rax).toBe(2n ** 32n - 1000n);
    expect(call(1, [], { is64Bit: false, cpl: 3 }).rax).toBe(2n ** 32n - 1n);
  });

  it.each([
    [5, 'pv-unhalt'],
    [10, 'pv-send-ipi'],
    [11, 'pv-sched-yield'],
  ] as const)('number %i is unknown without %s', (nr, feature) => {
    expect(call(nr, [1, 1], { kvm: without(feature) })).toMatchObject({ rax: ENOSYS, did: [] });
    expect(call(nr, [1, 1], { kvm: KVM_OFF })).toMatchObject({ rax: ENOSYS, did: [] });
  });

  it('VAPIC_POLL_IRQ returns 0', () => {
    expect(call(1).rax).toBe(0n);
  });

  it('CLOCK_PAIRING is not supported: the host’s clock is not a TSC', () => {
    expect(call(9, [0x1000, 0]).rax).toBe(2n ** 64n - 95n);
  });
});

describe('KICK_CPU', () => {
  it('kicks the APIC ID in its second argument and yields to it', () => {
    expect(call(5, [0, 3])).toMatchObject({ rax: 0n, did: ['kick 3', 'yield 3'] });
  });
});

describe('SCHED_YIELD', () => {
  it('yields to the APIC ID in its first argument', () => {
    expect(call(11, [2])).toMatchObject({ rax: 0n, did: ['yield 2'] });
  });
});

describe('SEND_IPI', () => {
  it('sends to each bit of the first bitmap and counts who accepted', () => {
    const { rax, did, messages } = call(10, [0b1011, 0, 0, 0xfb]);
    expect([rax, did]).toEqual([3n, ['ipi 0', 'ipi 1', 'ipi 3']]);
    expect(messages[2]).toEqual({
      vector: 0xfb,
      deliveryMode: DeliveryMode.fixed,
      destinationMode: 'physical',
      destination: 3,
      wide: true,
      shorthand: 'none',
      trigger: 'edge',
      assert: true,
      source: 'pv-ipi',
    });
  });

  it('the second bitmap continues 64 above, or 32 above outside of 64-bit mode', () => {
    expect(call(10, [2n ** 63n, 0b101, 4, 0xfb], { vcpus: 256 }).did).toEqual(['ipi 67', 'ipi 68', 'ipi 70']);
    expect(call(10, [2 ** 31, 1, 4, 0xfb], { vcpus: 256, is64Bit: false }).did).toEqual(['ipi 35', 'ipi 36']);
  });

  it('bits above 31 are dropped outside of 64-bit mode', () => {
    expect(call(10, [2n ** 33n, 0, 0, 0xfb], { vcpus: 256, is64Bit: false }).rax).toBe(0n);
  });

  it('does not count APICs that are absent or disabled', () => {
    expect(call(10, [0xff, 0, 0, 0xfb], { disabled: [1] })).toMatchObject({ rax: 3n, did: ['ipi 0', 'ipi 2', 'ipi 3'] });
  });

  it('a lowest APIC ID beyond the last one reaches nobody', () => {
    expect(call(10, [1, 0, 0xffff_ffff, 0xfb]).rax).toBe(0n);
    expect(call(10, [~0n & (2n ** 64n - 1n), 0, 5, 0xfb]).rax).toBe(0n);
  });

  it.each([0x800, 0x4_0000, 0x8_0000, 0xc_0000])('ICR bits 0x%s (logical, shorthand) are refused with -EINVAL', (icr) => {
    expect(call(10, [1, 0, 0, 0xfb | icr])).toMatchObject({ rax: 2n ** 64n - 22n, did: [] });
  });

  it('sends NMIs', () => {
    expect(call(10, [2, 0, 0, 0x400]).messages[0]).toMatchObject({ deliveryMode: DeliveryMode.nmi, destination: 1 });
  });

  it('a level that is not asserted goes nowhere; an asserted one does', () => {
    expect(call(10, [1, 0, 0, 0x80fb])).toMatchObject({ rax: 0n, did: [] });
    expect(call(10, [1, 0, 0, 0xc0fb]).messages[0]).toMatchObject({ trigger: 'level', assert: true });
  });

  it.each([0x300, 0x700])('delivery mode bits 0x%s are nothing a local APIC accepts', (mode) => {
    expect(call(10, [1, 0, 0, 0xfb | mode])).toMatchObject({ rax: 0n, did: [] });
  });
});
