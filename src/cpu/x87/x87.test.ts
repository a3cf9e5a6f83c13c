import { beforeEach, describe, expect, it } from 'vitest';
import { FCS, FDP, FDS, FIP, FOP, FPR, FSW, FTW, VCPU_STATE_SIZE } from '../state.ts';
import { X87, X87_NOT_STORED, X87_OK, X87_OPERATIONS, X87_PENDING, X87_TRAITS, type X87OperationName } from './x87.ts';

/** Not zero, so that nothing works by accident. */
const VCPU = 512;
const OPERAND = VCPU + VCPU_STATE_SIZE;

const buffer = new ArrayBuffer(8192);
const view = new DataView(buffer);
const x87 = new X87(buffer);

function run(name: X87OperationName, i = 0): number {
  return x87.execute(VCPU, X87_OPERATIONS[name] | (i << 8), OPERAND);
}

function load(value: number): void {
  view.setFloat64(OPERAND, value, true);
  run('fld_m64');
}

function control(fcw: number): void {
  view.setUint16(OPERAND, fcw, true);
  run('fldcw');
}

function status(): number {
  return view.getUint32(VCPU + FSW, true);
}

function pop(): number {
  run('fstp_m64');
  return view.getFloat64(OPERAND, true);
}

const INVALID_UNMASKED = 0x37e;
const PRECISION_UNMASKED = 0x35f;
const OVERFLOW_UNMASKED = 0x377;

beforeEach(() => {
  new Uint8Array(buffer).fill(0);
  run('fninit');
});

describe('pending exceptions', () => {
  it('are raised by the operation after the one that caused them', () => {
    control(INVALID_UNMASKED);
    load(-1);
    expect(run('fsqrt')).toBe(X87_OK);
    expect(status() & 0x8081).toBe(0x8081);
    expect(run('fld1')).toBe(X87_PENDING);
    expect(run('fwait')).toBe(X87_PENDING);
    expect(run('fnop')).toBe(X87_PENDING);
  });

  it('do not stop control instructions, and FNCLEX drops them', () => {
    control(INVALID_UNMASKED);
    load(-1);
    run('fsqrt');
    expect(run('fnstsw')).toBe(X87_OK);
    expect(view.getUint16(OPERAND, true) & 0x80).toBe(0x80);
    expect(run('fnclex')).toBe(X87_OK);
    expect(run('fchs')).toBe(X87_OK);
    expect(pop()).toBe(1);
  });

  it('come up when FLDCW unmasks what happened before', () => {
    load(1);
    load(3);
    expect(run('fdivp_sti_st0', 1)).toBe(X87_OK);
    expect(status() & 0x80a0).toBe(0x20);
    control(PRECISION_UNMASKED);
    expect(status() & 0x80a0).toBe(0x80a0);
    expect(run('fabs')).toBe(X87_PENDING);
  });
});

describe('stores to memory', () => {
  it('that an unmasked overflow suppresses say so and keep the register', () => {
    load(1e300);
    control(OVERFLOW_UNMASKED);
    view.setUint32(OPERAND, 0x1234_5678, true);
    expect(run('fstp_m32')).toBe(X87_NOT_STORED);
    expect(view.getUint32(OPERAND, true)).toBe(0x1234_5678);
    run('fnclex');
    expect(pop()).toBe(1e300);
  });

  it('are performed in spite of an unmasked loss of precision', () => {
    load(0.1);
    control(PRECISION_UNMASKED);
    expect(run('fstp_m32')).toBe(X87_OK);
    expect(view.getFloat32(OPERAND, true)).toBe(Math.fround(0.1));
    expect(view.getUint32(VCPU + FTW, true)).toBe(0);
    expect(run('fld1')).toBe(X87_PENDING);
  });
});

describe('the register stack', () => {
  it('names physical registers downwards from 7', () => {
    run('fld1');
    expect(view.getUint16(VCPU + FPR + 7 * 16 + 8, true)).toBe(0x3fff);
    expect(view.getUint32(VCPU + FTW, true)).toBe(0x80);
    expect((status() >> 11) & 7).toBe(7);
  });

  it('overflows at the ninth push with C1 set and the indefinite on top', () => {
    for (let n = 0; n < 9; n++) run('fldz');
    expect(status() & 0x241).toBe(0x241);
    expect(pop()).toBeNaN();
  });

  it('underflows with C1 clear', () => {
    run('fstp_m64');
    expect(status() & 0x241).toBe(0x41);
    expect(view.getBigUint64(OPERAND, true)).toBe(0xfff8_0000_0000_0000n);
  });

  it('keeps two vCPUs apart', () => {
    const other = new X87(buffer);
    const second = 4096;
    other.execute(second, X87_OPERATIONS.fninit, 0);
    load(2);
    other.execute(second, X87_OPERATIONS.fldpi, 0);
    expect(pop()).toBe(2);
    other.execute(second, X87_OPERATIONS.fstp_m64, OPERAND);
    expect(view.getFloat64(OPERAND, true)).toBe(Math.PI);
  });
});

describe('real-mode environments', () => {
  beforeEach(() => {
    load(1);
    view.setUint32(VCPU + FIP, 0x12_3456, true);
    view.setUint32(VCPU + FDP, 0xab_cdef, true);
    view.setUint32(VCPU + FOP, 0x5d9, true);
    view.setUint32(VCPU + FCS, 0x1000, true);
    view.setUint32(VCPU + FDS, 0x2000, true);
  });

  it('hold linear addresses in 16 bits with four more beside the opcode', () => {
    run('fnstenv_real16');
    const words = Array.from({ length: 7 }, (_, n) => view.getUint16(OPERAND + 2 * n, true));
    expect(words).toEqual([0x37f, 0x3800, 0x3fff, 0x3456, 0x25d9, 0xcdef, 0xb000]);
  });

  it('hold linear addresses in two pieces in 32 bits', () => {
    run('fnstenv_real32');
    const words = Array.from({ length: 7 }, (_, n) => view.getUint32(OPERAND + 4 * n, true));
    expect(words).toEqual([0xffff_037f, 0xffff_3800, 0xffff_3fff, 0xffff_3456, 0x1_25d9, 0xffff_cdef, 0xa_b000]);
  });

  it.each([16, 32] as const)('are restored from %i-bit images with the registers', (bits) => {
    run(`fnsave_real${bits}`);
    expect(view.getUint32(VCPU + FTW, true)).toBe(0);
    expect(view.getUint32(VCPU + FOP, true)).toBe(0);
    run(`frstor_real${bits}`);
    expect(view.getUint32(VCPU + FTW, true)).toBe(0x80);
    expect(view.getUint32(VCPU + FIP, true)).toBe(bits === 32 ? 0x12_3456 : 0x2_3456);
    expect(view.getUint32(VCPU + FDP, true)).toBe(bits === 32 ? 0xab_cdef : 0xb_cdef);
    expect(view.getUint32(VCPU + FOP, true)).toBe(0x5d9);
    expect(pop()).toBe(1);
  });
});

describe('traits', () => {
  const traits = (name: X87OperationName) => X87_TRAITS[X87_OPERATIONS[name]];

  it('tell operands', () => {
    expect(traits('fadd_m32')).toEqual({ indexed: false, operandBytes: 4, stores: false, waits: true, control: false });
    expect(traits('fistp_m64')).toEqual({ indexed: false, operandBytes: 8, stores: true, waits: true, control: false });
    expect(traits('fisttp_m16')).toEqual({ indexed: false, operandBytes: 2, stores: true, waits: true, control: false });
    expect(traits('fbstp_m80')).toEqual({ indexed: false, operandBytes: 10, stores: true, waits: true, control: false });
    expect(traits('fnsave_real16')).toEqual({ indexed: false, operandBytes: 94, stores: true, waits: false, control: true });
    expect(traits('fldenv_protected32')).toEqual({ indexed: false, operandBytes: 28, stores: false, waits: true, control: true });
    expect(traits('fstp_sti')).toEqual({ indexed: true, operandBytes: 0, stores: false, waits: true, control: false });
    expect(traits('fnop')).toEqual({ indexed: false, operandBytes: 0, stores: false, waits: true, control: false });
  });

  it('say of each operation whether it writes its operand', () => {
    for (const name of Object.keys(X87_OPERATIONS) as X87OperationName[]) {
      const { operandBytes, stores } = traits(name);
      new Uint8Array(buffer).fill(0);
      run('fninit');
      load(1.5);
      load(2.5);
      new Uint8Array(buffer, OPERAND, 128).fill(0x3d);
      run(name);
      const written = new Uint8Array(buffer, OPERAND, 128).findLastIndex((byte) => byte !== 0x3d) + 1;
      expect([name, stores, written <= operandBytes]).toEqual([name, written > 0, true]);
    }
  });
});
