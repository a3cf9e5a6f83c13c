import { describe, expect, it } from 'vitest';
import './all.ts';
import { type CodeBits, Decoder } from './decoder.ts';

const decoder = new Decoder();

/** Mnemonic and numbers of an instruction given in hexadecimal; 'undefined', 'truncated', 'too-long' where it is none. */
function decode(text: string, codeBits: CodeBits = 64, using = decoder): string {
  const bytes = Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
  const status = using.decode(bytes, 0, bytes.length, codeBits);
  const { form, length, operandBits, reg, vvvv, rm, mod } = using.result;
  if (status !== 'ok') return status;
  return `${form.instruction.mnemonic} ${operandBits} reg ${reg} vvvv ${vvvv} ${mod === 3 ? `rm ${rm}` : 'mem'} length ${length}`;
}

describe('VEX', () => {
  it('extends all three registers, inverted', () => {
    expect(decode('c4 e2 60 f2 c1')).toBe('ANDN 32 reg 0 vvvv 3 rm 1 length 5');
    expect(decode('c4 42 b8 f2 c1')).toBe('ANDN 64 reg 8 vvvv 8 rm 9 length 5');
    expect(decode('c4 62 00 f2 3b')).toBe('ANDN 32 reg 15 vvvv 15 mem length 5');
  });

  it('reaches R12 and R13 as base and index', () => {
    decode('c4 82 60 f2 44 ac 10');
    expect(decoder.result).toMatchObject({ base: 12, index: 13, scale: 2, displacement: 16, length: 7 });
  });

  it('must not follow what it stands for, LOCK or REX', () => {
    for (const prefix of ['66', 'f2', 'f3', 'f0', '48']) expect(decode(`${prefix} c4 e2 60 f2 c1`)).toBe('undefined');
    expect(decode('65 67 c4 e2 60 f2 03')).toBe('ANDN 32 reg 0 vvvv 3 mem length 7');
  });

  it('is undefined with a length, a map, an operand or an opcode that no instruction has', () => {
    expect(decode('c4 e2 64 f2 c1')).toBe('undefined');
    for (const map of ['e0', 'e4', 'ff']) expect(decode(`c4 ${map} 60 f2 c1`)).toBe('undefined');
    expect(decode('c4 e3 7b f0 c1 05')).toBe('RORX 32 reg 0 vvvv 0 rm 1 length 6');
    expect(decode('c4 e3 63 f0 c1 05')).toBe('undefined');
    expect(decode('c4 e2 60 f3 c1')).toBe('undefined');
    expect(decode('c4 e2 60 f3 c9')).toBe('BLSR 32 reg 1 vvvv 3 rm 1 length 5');
    expect(decode('c5 e0 58 c1')).toBe('undefined');
  });

  it('asks for all of its bytes', () => {
    for (const part of ['c4', 'c4 e2', 'c4 e2 60', 'c4 e2 60 f2', 'c5', 'c5 e0']) expect(decode(part)).toBe('truncated');
  });

  it('is LES and LDS in other modes where its next byte names memory', () => {
    expect(decode('c4 06 34 12', 16)).toMatch(/^LES 16 .* mem length 4$/);
    expect(decode('c5 03', 32)).toMatch(/^LDS 32/);
    expect(decode('c4 e2 60 f2 c1', 32)).toBe('ANDN 32 reg 0 vvvv 3 rm 1 length 5');
    // There W does not matter, nor does vvvv's top bit or the code's size.
    expect(decode('c4 e2 a0 f2 c1', 16)).toBe('ANDN 32 reg 0 vvvv 3 rm 1 length 5');
    expect(decode('c4', 32)).toBe('truncated');
  });
});

describe('LOCK before MOV CR0', () => {
  it('names CR8 where the processor has this, and is undefined otherwise', () => {
    expect(decode('f0 0f 20 c3')).toMatch(/^MOV .* reg 8 .* rm 3/);
    expect(decode('f0 0f 22 c3', 32)).toMatch(/^MOV .* reg 8 .* rm 3/);
    expect(decode('f0 0f 20 d3')).toBe('undefined');
    expect(decode('f0 0f 20 c3', 64, new Decoder((feature) => feature !== 'cr8_legacy'))).toBe('undefined');
  });
});
