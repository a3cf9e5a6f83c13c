import { describe, expect, it } from 'vitest';
import { METHODS, structureBytes, structureOffset, structureSymbol } from './apic-driver.ts';
import { driverLayer, EOI_STATES, type EoiState, functionCode, methodSymbol, structureCode } from './driver-code.ts';
import { DRIVERS, PROBE_ORDER } from './drivers/all.ts';
import { PV_EOI_OVERRIDE } from './pv-eoi.ts';

const named = DRIVERS.map((driver) => ({ driver, title: `${driver.name} (${driver.bits}-bit)` }));

describe.each(named)('$title', ({ driver }) => {
  /** Everything about a method in a state: its code, and what the linker is to fill in. */
  const emitted = (method: (typeof METHODS)[number], state: EoiState) => {
    const symbol = methodSymbol(driver, method, state);
    const code = symbol === undefined ? undefined : functionCode(symbol, driver.bits);
    return code && { symbol, bytes: [...code.bytes], relocations: code.relocations };
  };

  it('has code for every method it names', () => {
    for (const method of METHODS) {
      const symbol = driver.methods[method];
      if (symbol !== undefined) expect(functionCode(symbol, driver.bits), `${method}: ${symbol}`).toBeDefined();
    }
    for (const method of [
      'read',
      'write',
      'eoiWrite',
      'icrRead',
      'icrWrite',
      'waitIcrIdle',
      'safeWaitIcrIdle',
      'sendIpiMask',
      'sendIpiAllButSelf',
      'sendIpiAll',
      'sendIpiSelf',
      'initApicLdr',
      'cpuMaskToApicId',
    ] as const) {
      expect(driver.methods[method], method).toBeDefined();
    }
  });

  it('differs between the states in its EOI and in nothing else, byte by byte', () => {
    for (const method of METHODS.filter((m) => m !== 'eoiWrite')) {
      const before = emitted(method, 'before');
      for (const state of EOI_STATES) expect(emitted(method, state), `${method} under ${state}`).toEqual(before);
    }
    const isOverridden = driver.name !== 'noop'; // which probing does not know
    expect(emitted('eoiWrite', 'pv-eoi')?.symbol === PV_EOI_OVERRIDE).toBe(isOverridden);
    const word = driver.bits === 64 ? 8 : 4;
    const eoi = structureOffset('eoiWrite', word);
    const structures = EOI_STATES.map((state) => structureCode(driver, state));
    for (const { bytes, relocations } of structures) {
      expect([...bytes]).toEqual([...structures[0].bytes]);
      expect(relocations.filter(({ offset }) => offset !== eoi)).toEqual(structures[0].relocations);
    }
    expect(structures.map(({ relocations }) => relocations.find(({ offset }) => offset === eoi)?.symbol)).toEqual([
      undefined,
      driver.methods.eoiWrite,
      driver.directEoi ?? driver.methods.eoiWrite,
      driver.directEoi ?? driver.methods.eoiWrite, // overridden at boot
    ]);
  });

  it('lays its structure out as the offsets say', () => {
    const word = driver.bits === 64 ? 8 : 4;
    const { symbols, relocations } = structureCode(driver, 'callback');
    expect(symbols.get(`${structureSymbol(driver.name)}.name`)).toBe(structureBytes(word));
    for (const method of METHODS)
      expect(relocations.find(({ offset }) => offset === structureOffset(method, word))?.symbol, method).toBe(
        driver.methods[method],
      );
  });
});

describe('the drivers of the series', () => {
  it('give the x2APIC ones the MSR write of their own in patch 4, and no other', () => {
    expect(
      DRIVERS.filter(
        (driver) => methodSymbol(driver, 'eoiWrite', 'x2apic-eoi') !== methodSymbol(driver, 'eoiWrite', 'callback'),
      ).map(({ name }) => name),
    ).toEqual(['x2apic_cluster', 'x2apic_phys', 'x2apic_uv_x']);
  });

  it('are probed in the order of Linux', () => {
    expect(PROBE_ORDER[64].map(({ name }) => name)).toEqual([
      'numachip',
      'x2apic_uv_x',
      'x2apic_phys',
      'x2apic_cluster',
      'physflat',
      'flat',
    ]);
    expect(PROBE_ORDER[32].map(({ name }) => name)).toEqual(['numaq', 'summit', 'bigsmp', 'es7000_cluster', 'es7000', 'default']);
  });

  it.each([32, 64] as const)('share code: no function is there twice (%i-bit)', (bits) => {
    const symbols = driverLayer(bits, 'callback', []).flatMap(({ symbols: own }) =>
      [...own.keys()].filter((name) => !name.includes('.')),
    );
    expect(new Set(symbols).size).toBe(symbols.length);
    expect(symbols.filter((name) => name === 'native_apic_mem_write')).toHaveLength(1);
  });
});
