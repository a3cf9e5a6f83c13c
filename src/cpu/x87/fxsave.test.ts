import { beforeEach, describe, expect, it } from 'vitest';
import { FCS, FIP, FSW, FTW, MXCSR, VCPU_STATE_SIZE, XMM } from '../state.ts';
import { FxState, INITIAL_MXCSR } from './fxsave.ts';
import { X87, X87_OK, X87_OPERATIONS } from './x87.ts';

const VCPU = 512;
const IMAGE = VCPU + VCPU_STATE_SIZE;
const buffer = new ArrayBuffer(8192);
const view = new DataView(buffer);
const bytes = new Uint8Array(buffer);
const fxState = new FxState(buffer);
const x87 = new X87(buffer);

beforeEach(() => {
  bytes.fill(0);
  fxState.initializeX87(VCPU);
  view.setUint32(VCPU + MXCSR, INITIAL_MXCSR, true);
  for (let n = 0; n < 256; n++) bytes[VCPU + XMM + n] = n;
});

describe('FXSAVE', () => {
  it('stores registers from the top, tags by physical register, and leaves what is reserved alone', () => {
    x87.execute(VCPU, X87_OPERATIONS.fldz, 0);
    x87.execute(VCPU, X87_OPERATIONS.fld1, 0);
    bytes.fill(0xa5, IMAGE, IMAGE + 512);
    fxState.fxsave(VCPU, IMAGE, true);
    expect(view.getUint16(IMAGE, true)).toBe(0x37f);
    expect(view.getUint16(IMAGE + 2, true)).toBe(6 << 11);
    expect(view.getUint16(IMAGE + 4, true)).toBe(0xc0);
    expect(view.getUint16(IMAGE + 32 + 8, true)).toBe(0x3fff);
    expect(view.getUint16(IMAGE + 48 + 8, true)).toBe(0);
    expect(view.getUint32(IMAGE + 24, true)).toBe(INITIAL_MXCSR);
    expect(view.getUint32(IMAGE + 28, true)).toBe(0xffff);
    expect(bytes.slice(IMAGE + 160, IMAGE + 416)).toEqual(bytes.slice(VCPU + XMM, VCPU + XMM + 256));
    expect(bytes.slice(IMAGE + 416, IMAGE + 512).every((byte) => byte === 0xa5)).toBe(true);
  });

  it('stores eight XMM registers outside of 64-bit mode', () => {
    fxState.fxsave(VCPU, IMAGE, false, 8);
    expect(bytes[IMAGE + 160 + 127]).toBe(127);
    expect(bytes[IMAGE + 160 + 128]).toBe(0);
  });

  it('stores error pointers only while an exception is pending, selectors only without REX.W', () => {
    view.setBigUint64(VCPU + FIP, 0xffff_8000_1234_5678n, true);
    view.setUint32(VCPU + FCS, 0x10, true);
    fxState.fxsave(VCPU, IMAGE, true);
    expect(view.getBigUint64(IMAGE + 8, true)).toBe(0n);
    view.setUint32(VCPU + FSW, 0x8081, true);
    fxState.fxsave(VCPU, IMAGE, true);
    expect(view.getBigUint64(IMAGE + 8, true)).toBe(0xffff_8000_1234_5678n);
    fxState.fxsave(VCPU, IMAGE, false);
    expect(view.getBigUint64(IMAGE + 8, true)).toBe(0x10_1234_5678n);
  });
});

describe('FXRSTOR', () => {
  it('brings back what FXSAVE stored', () => {
    x87.execute(VCPU, X87_OPERATIONS.fldpi, 0);
    fxState.fxsave(VCPU, IMAGE, true);
    const image = bytes.slice(IMAGE, IMAGE + 512);
    bytes.fill(0x5a, VCPU, VCPU + VCPU_STATE_SIZE);
    expect(fxState.fxrstor(VCPU, IMAGE, true)).toBe(true);
    bytes.fill(0, IMAGE, IMAGE + 512);
    fxState.fxsave(VCPU, IMAGE, true);
    expect(bytes.slice(IMAGE, IMAGE + 512)).toEqual(image);
    expect(x87.execute(VCPU, X87_OPERATIONS.fstp_m64, IMAGE)).toBe(X87_OK);
    expect(view.getFloat64(IMAGE, true)).toBe(Math.PI);
  });

  it('restores nothing where MXCSR has reserved bits', () => {
    fxState.fxsave(VCPU, IMAGE, true);
    view.setUint16(IMAGE + 4, 0xff, true);
    view.setUint32(IMAGE + 24, 0x1_0000 | INITIAL_MXCSR, true);
    expect(fxState.fxrstor(VCPU, IMAGE, true)).toBe(false);
    expect(view.getUint32(VCPU + FTW, true)).toBe(0);
  });

  it('makes exceptions pending that the image has unmasked', () => {
    fxState.fxsave(VCPU, IMAGE, true);
    view.setUint16(IMAGE, 0x37e, true);
    view.setUint16(IMAGE + 2, 1, true);
    fxState.fxrstor(VCPU, IMAGE, true);
    expect(view.getUint32(VCPU + FSW, true)).toBe(0x8081);
  });
});

describe('the initial state', () => {
  it('is recognized, and left by a load', () => {
    expect(fxState.isX87Initial(VCPU)).toBe(true);
    x87.execute(VCPU, X87_OPERATIONS.fldz, 0);
    expect(fxState.isX87Initial(VCPU)).toBe(false);
  });
});
