import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type CodeBits, Decoder, type Form, forms } from '../../isa/decoder.ts';
import type { OperandSpecification } from '../../isa/encoding.ts';
import { assembler } from './assembler.ts';
import { type Encoded, encode, explicitOperands, formName, instructionNames } from './encoder.ts';
import { INSTRUCTION_NAMES } from './mnemonics.ts';
import * as o from './operands.ts';
import { type GeneralRegister, type Memory, type Operand, operandText, type Register } from './operands.ts';

const iced = createRequire(import.meta.url)('iced-x86') as typeof import('iced-x86');
const MODES: CodeBits[] = [16, 32, 64];
const NO_PREFIXES = { lock: false, repeat: 0 } as const;

// What iced calls differently, by mode where it tells apart what the assembler's name leaves to the mode.
const ICED_NAMES: Record<string, string | Record<CodeBits, string>> = {
  callFar: 'call',
  jmpFar: 'jmp',
  retfw: 'retf',
  retfd: 'retf',
  retfq: 'retf',
  iretw: 'iret',
  xlat: 'xlatb',
  fwait: 'wait',
  fcmovnb: 'fcmovnb',
  jrcxz: { 16: 'jcxz', 32: 'jecxz', 64: 'jrcxz' },
  pushf: { 16: 'pushf', 32: 'pushfd', 64: 'pushfq' },
  popf: { 16: 'popf', 32: 'popfd', 64: 'popfq' },
  pusha: { 16: 'pusha', 32: 'pushad', 64: '' },
  popa: { 16: 'popa', 32: 'popad', 64: '' },
};

/** Everything iced says of an instruction, in one line; far pointers and implied operands included. */
function icedSays(bytes: readonly number[], bits: CodeBits): string {
  const { Register: R, OpKind: K } = iced;
  const decoder = new iced.Decoder(bits, Uint8Array.from(bytes), iced.DecoderOptions.None);
  const i = decoder.decode();
  const name = (register: number): string => iced.Register[register].toLowerCase().replace(/^r(\d+)l$/, 'r$1b');
  const signed = (value: bigint): bigint => BigInt.asIntN(64, value);
  const operand = (at: number): string | undefined => {
    switch (i.opKind(at)) {
      case K.Register:
        return name(i.opRegister(at));
      case K.NearBranch16:
      case K.NearBranch32:
      case K.NearBranch64:
        return `to ${i.nearBranchTarget}`;
      case K.FarBranch16:
        return `far ${i.farBranchSelector}:${i.farBranch16}`;
      case K.FarBranch32:
        return `far ${i.farBranchSelector}:${i.farBranch32}`;
      case K.Memory: {
        const none = R.None;
        const parts = [
          i.memoryBase === none ? '' : name(i.memoryBase),
          i.memoryIndex === none ? '' : `${name(i.memoryIndex)}*${i.memoryIndexScale}`,
        ];
        const displacement = i.isIpRelMemoryOperand ? 0n : i.memoryDisplacementU64;
        return `${iced.MemorySizeExt.size(i.memorySize) * 8}[${i.hasSegmentPrefix ? name(i.segmentPrefix) : ''} ${parts.join(' ')} ${BigInt.asUintN(bits === 16 ? 16 : 32, displacement)}]`;
      }
      case K.Immediate8:
      case K.Immediate8_2nd:
      case K.Immediate16:
      case K.Immediate32:
      case K.Immediate64:
      case K.Immediate8to16:
      case K.Immediate8to32:
      case K.Immediate8to64:
      case K.Immediate32to64:
        return `#${signed(i.immediate(at))}`;
      default:
        return undefined; // implied
    }
  };
  const mnemonic = iced.Mnemonic[i.mnemonic].toLowerCase();
  const text = i.isInvalid
    ? 'invalid'
    : `${i.hasLockPrefix ? 'lock ' : ''}${mnemonic} ${Array.from({ length: i.opCount }, (_, at) => operand(at))
        .filter((text) => text !== undefined)
        .join(', ')} (${i.length})`;
  i.free();
  decoder.free();
  return text;
}

/** The same line from the operands that were asked for. `memoryBits` of operands that don't say is taken from iced. */
function expected(name: string, operands: readonly Operand[], encoded: Encoded, bits: CodeBits, icedText: string): string {
  const { form, bytes } = encoded;
  const icedName = ICED_NAMES[name] ?? name;
  const operandLine = (operand: Operand, at: number): string => {
    if (typeof operand === 'string') return `to ${BigInt.asUintN(bits === 64 ? 64 : 32, BigInt(bytes.length))}`;
    if (typeof operand === 'number' || typeof operand === 'bigint') return `#${normalised(operand, at, icedText)}`;
    switch (operand.kind) {
      case 'register': {
        // Where 16 bits are read whatever the operand size is, iced names the register by that.
        const fixed = explicitOperands(form)[at]?.code === 'E' && operand.bits === 16;
        const wider = fixed
          ? ([32, 64] as const)
              .map((width) => o.sized(operand as GeneralRegister, width).name)
              .find((wide) => new RegExp(`\\b${wide}\\b`).test(icedText))
          : undefined;
        return new RegExp(`\\b${operand.name}\\b`).test(icedText) ? operand.name : (wider ?? operand.name);
      }
      case 'far':
        return `far ${operand.selector}:${operand.offset}`;
      case 'memory': {
        const size = (!/PREFETCH/.test(form.instruction.mnemonic) && operand.bits) || /(\d+)\[/.exec(icedText)?.[1];
        const turned = operand.base?.bits === 16 && operand.index !== undefined && operand.base.number > 5;
        const [base, index] = turned ? [operand.index, operand.base] : [operand.base, operand.index];
        const parts = [base?.name ?? '', index ? `${index.name}*${operand.scale}` : ''];
        return `${size}[${operand.segment?.name ?? ''} ${parts.join(' ')} ${BigInt.asUintN(bits === 16 ? 16 : 32, BigInt(operand.displacement))}]`;
      }
      case 'address':
        return '?';
    }
  };
  return `${typeof icedName === 'string' ? icedName : icedName[bits]} ${operands.map(operandLine).join(', ')} (${bytes.length})`;
}

/** iced gives immediates sign-extended from the operand's size, or unsigned: both are the same bits. */
function normalised(value: number | bigint, at: number, icedText: string): bigint {
  const theirs = /^#(-?\d+)/.exec(
    icedText
      .replace(/ \(\d+\)$/, '')
      .split(', ')
      [at]?.replace(/^\w+ /, '') ?? '',
  )?.[1];
  if (theirs === undefined) return BigInt(value);
  for (const width of [8, 16, 32, 64])
    if (BigInt.asUintN(width, BigInt(value)) === BigInt.asUintN(width, BigInt(theirs)) && BigInt(theirs) >> BigInt(width) <= 0n)
      return BigInt(theirs);
  return BigInt(value);
}

let turn = 0;
const pick = <T>(list: readonly T[]): T => list[turn++ % list.length];

/** Places in memory, for a mode: every kind of ModRM and SIB, with the registers that are special. */
function places(bits: CodeBits): Memory[] {
  const { mem, times } = o;
  if (bits === 16)
    return [
      mem(o.bx, o.si),
      mem(o.bp, 0),
      mem(o.si, 0x7f),
      mem(o.bx, 0x80),
      mem(0x1234),
      mem(o.bp, o.di, -2),
      mem(o.es, o.di),
      mem(o.eax, times(o.ecx, 4), 0x12345),
    ];
  const registers = o.GENERAL_REGISTERS[bits].slice(0, bits === 64 ? 16 : 8);
  const [a, c, , b, stack, frame, , d] = registers;
  const both = [
    mem(a),
    mem(frame),
    mem(stack, 8),
    mem(b, times(c, 4)),
    mem(frame, d, -0x80),
    mem(times(c, 8), 0x10),
    mem(0x1234),
    mem(o.gs, 0x28),
    mem(o.fs, a, 0x1000),
    mem(d, 0x7f),
    mem(d, 0x80),
  ];
  if (bits === 32) return [...both, mem(o.bx, o.di, 4), mem(o.bp)];
  return [
    ...both,
    mem(o.r12),
    mem(o.r13),
    mem(o.r12, times(o.r13, 2), -4),
    mem(o.rax, o.r12),
    mem(o.r8, 0x12345678),
    mem(o.ebx, times(o.r9d, 8), 1),
  ];
}

const withBits = (operand: Memory, bits: number): Memory => ({ ...operand, bits });
const SIZES: Record<string, (v: number) => number> = {
  b: () => 8,
  w: () => 16,
  d: () => 32,
  q: () => 64,
  t: () => 80,
  v: (v) => v,
  z: (v) => Math.min(v, 32),
  y: (v) => Math.max(v, 32),
  ss: () => 32,
  sd: () => 64,
  p: (v) => v + 16,
  ...Object.fromEntries(['', 'a', 's', 'env', 'fpu', 'fx', 'xs'].map((size) => [size, () => 0])),
};

/** Operands for a place of a form, of different kinds. */
function samples({ code, size }: OperandSpecification, form: Form, v: number, bits: CodeBits): Operand[] {
  const width = (SIZES[size] ?? (() => 128))(v);
  const general = (): Register[] => {
    const native =
      /^(MOV|INVPCID)$/.test(form.instruction.mnemonic) &&
      (/[CD]q/.test(form.encoding.text) || form.instruction.mnemonic === 'INVPCID');
    const all = o.GENERAL_REGISTERS[(native ? (bits === 64 ? 64 : 32) : width) as 8];
    const usable = all
      .filter(({ number }) => number < 8 || bits === 64)
      .filter((r) => bits === 64 || !/^(spl|bpl|sil|dil)$/.test(r.name));
    const high = width === 8 ? [pick([o.ah, o.ch, o.dh, o.bh])] : [];
    return [pick(usable), pick(usable), usable[usable.length - 1], ...high];
  };
  const memory = (bitsOfIt = width): Memory[] =>
    form.allowsMemory ? [pick(places(bits)), pick(places(bits))].map((place) => withBits(place, bitsOfIt)) : [];
  const inMode = (list: readonly Register[]): Register[] =>
    [pick(list), pick(list)].map((register) => (register.number < 8 || bits === 64 ? register : list[register.number - 8]));
  const registerForm = form.allowsRegister;
  switch (code) {
    case 'E':
    case 'R':
    case 'M':
      return [...(registerForm ? general() : []), ...memory()];
    case 'W':
    case 'U':
      return [
        ...(registerForm ? inMode(o.XMM_REGISTERS) : []),
        ...memory(/^CVT(DQ2PD|PS2PD)$/.test(form.instruction.mnemonic) ? 64 : width),
      ];
    case 'Q':
    case 'N':
      return [...(registerForm ? inMode(o.MMX_REGISTERS) : []), ...memory()];
    case 'G':
    case 'Z':
    case 'B':
      return general();
    case 'V':
      return inMode(o.XMM_REGISTERS);
    case 'P':
      return inMode(o.MMX_REGISTERS);
    case 'S':
      return [pick(o.SEGMENT_REGISTERS.filter((s) => s !== o.cs)), o.gs];
    case 'C':
      return inMode(o.CONTROL_REGISTERS);
    case 'D':
      return inMode(o.DEBUG_REGISTERS);
    case 'I':
      if (size === 'p') return [o.far(0x10, v === 16 ? 0x1234 : 0x12345678)];
      return [
        1,
        -2,
        ...(width === 8 ? [0x7f] : [-0x1234, 0x7ffe]),
        ...(width === 64 ? [0x123456789abcdef0n, -1n] : width >= 32 ? [0x12345678] : []),
      ];
    case 'sI':
      return [-0x80, 0x7f, 3];
    case 'J':
      return ['target'];
    case 'O':
      return [withBits(o.mem(bits === 16 ? 0x1234 : 0x12345678), width)];
    case 'AL':
      return [o.al];
    case 'CL':
      return [o.cl];
    case 'AX':
      return [o.ax];
    case 'DX':
      return [o.dx];
    case 'eAX':
      return [o.GENERAL_REGISTERS[v as 16 | 32][0]];
    case '1':
      return [1];
    default:
      throw new Error(`no sample for ${code}`);
  }
}

const IMPLIED: Record<string, Register> = {
  '06': o.es,
  '0E': o.cs,
  '16': o.ss,
  '1E': o.ds,
  '0F A0': o.fs,
  '0F A8': o.gs,
  '07': o.es,
  '17': o.ss,
  '1F': o.ds,
  '0F A1': o.fs,
  '0F A9': o.gs,
  'DF E0': o.ax,
};

/** Operand lists for a form in a mode: its registers vary with each call. */
function operandLists(form: Form, bits: CodeBits): Operand[][] {
  const implied = IMPLIED[form.encoding.text.split(' ;')[0]];
  if (implied) return [[implied]];
  const specifications = explicitOperands(form);
  if (specifications[0]?.code === 'i') {
    const other = pick(o.X87_REGISTERS.slice(1));
    return [[other], [o.st0, other], [other, o.st0], [o.st0]];
  }
  const lists: Operand[][] = [];
  for (const v of form.encoding.sized ? [16, 32, 64] : [32]) {
    if (v === 64 && bits !== 64) continue;
    const columns = specifications.map((specification) => samples(specification, form, v, bits));
    const rows = Math.max(1, ...columns.map((column) => column.length));
    for (let row = 0; row < rows * 2; row++)
      lists.push(columns.map((column, at) => column[(row + (row >= rows ? at : 0)) % column.length]));
  }
  return lists;
}

const exists = (form: Form, bits: CodeBits): boolean =>
  !form.encoding.modifiers.has(bits === 64 ? 'n64' : 'o64') &&
  (bits === 64 || !(form.encoding.modifiers.has('W1') || form.encoding.modifiers.has('s64')));

describe.each(MODES)('in %i-bit code', (bits) => {
  it('every form is reachable, and iced-x86 reads back what was written', () => {
    const decoder = new Decoder();
    const differences: string[] = [];
    const unreached: string[] = [];
    for (const [name, candidates] of instructionNames()) {
      for (const { form } of candidates) {
        if (!exists(form, bits) || (name !== formName(form) && !name.startsWith('prefetch'))) continue;
        let reached = false;
        for (const operands of operandLists(form, bits)) {
          let encodings: Encoded[];
          try {
            encodings = encode(name, operands, bits, NO_PREFIXES);
          } catch (error) {
            if (!/no encoding/.test((error as Error).message)) throw error;
            continue;
          }
          for (const encoded of encodings) {
            reached ||= encoded.form === form;
            const theirs = icedSays(encoded.bytes, bits);
            const written = withStackTop(encoded.form, operands, theirs);
            const ours = expected(name, written, encoded, bits, theirs);
            const comparable =
              explicitOperands(encoded.form).length === 0 && written.length === 0
                ? [ours.split(' ')[0], theirs.split(' ')[0]]
                : [ours, theirs];
            if (comparable[0] !== comparable[1] && !swapped(name, ours, theirs))
              differences.push(
                `${name} ${operands.map(operandText).join(', ')}: ${hex(encoded.bytes)} is ${theirs}, not ${ours}`,
              );
            const status = decoder.decode(
              Uint8Array.from([...encoded.bytes, ...new Array<number>(15).fill(0x90)]),
              0,
              encoded.bytes.length,
              bits,
            );
            if (status !== 'ok' || decoder.result.form !== encoded.form || decoder.result.length !== encoded.bytes.length) {
              differences.push(
                `${name} ${operands.map(operandText).join(', ')}: ${hex(encoded.bytes)} decodes as ${status} ${decoder.result.form?.encoding?.text}, not ${encoded.form.encoding.text}`,
              );
            }
          }
        }
        if (!reached) unreached.push(`${name}: ${form.encoding.text}`);
      }
    }
    expect(differences.slice(0, 40)).toEqual([]);
    expect(unreached).toEqual([]);
  });

  it('iced-x86 reads back every kind of address', () => {
    const differences: string[] = [];
    const registers: (GeneralRegister | undefined)[] = [undefined, ...o.GENERAL_REGISTERS[bits].slice(0, bits === 64 ? 16 : 8)];
    for (const base of registers) {
      for (const index of registers) {
        if (bits === 16 && !legal16(base, index)) continue;
        if (index?.number === 4 && (!base || base.number === 4)) continue;
        for (const scale of bits === 16 ? [1 as const] : ([1, 2, 4, 8] as const)) {
          if (index?.number === 4 && scale !== 1) continue;
          for (const displacement of [0, 1, -1, 0x7f, 0x80, -0x80, -0x81, 0x1234, 0x7fff]) {
            if (bits === 64 && !base && !index && displacement < 0) continue;
            const parts = [base, index && o.times(index, scale), displacement].filter((part) => part !== undefined);
            const operands = [o.ecx, o.mem(...parts)];
            const [encoded] = encode('mov', operands, bits, NO_PREFIXES);
            const theirs = icedSays(encoded.bytes, bits);
            const ours = expected('mov', operands, encoded, bits, theirs);
            if (ours !== theirs)
              differences.push(`${operands.map(operandText)}: ${hex(encoded.bytes)} is ${theirs}, not ${ours}`);
          }
        }
      }
    }
    expect(differences.slice(0, 20)).toEqual([]);
  });
});

const legal16 = (base: Register | undefined, index: Register | undefined): boolean => {
  const [b, i] = [base?.number, index?.number];
  const bases = [3, 5];
  const indices = [6, 7];
  if (b === undefined && i === undefined) return true;
  if (b === undefined || i === undefined) return [...bases, ...indices].includes((b ?? i) as number);
  return (bases.includes(b) && indices.includes(i)) || (indices.includes(b) && bases.includes(i));
};
const hex = (bytes: readonly number[]): string => bytes.map((b) => b.toString(16).padStart(2, '0')).join(' ');

/** iced writes ST(0) out where it is an operand. */
function withStackTop(form: Form, operands: readonly Operand[], theirs: string): readonly Operand[] {
  if (!form.encoding.operands.some(({ code }) => code === 'i') || operands.length !== 1 || !theirs.includes(',')) return operands;
  return form.encoding.opcode === 0xde ? [operands[0], o.st0] : [o.st0, operands[0]];
}

/** Whether it is only the order of operands in which nothing has an order. */
function swapped(name: string, ours: string, theirs: string): boolean {
  if (name !== 'xchg' && name !== 'test') return false;
  const sort = (line: string): string =>
    line
      .replace(/^\w+ /, '')
      .replace(/ \(\d+\)$/, '')
      .split(', ')
      .sort()
      .join();
  return sort(ours) === sort(theirs);
}

describe('the assembler', () => {
  it('refuses what has no encoding, and memory of open size', () => {
    expect(() => assembler(64).mov(o.eax, o.cl)).toThrow('no encoding of mov eax, cl in 64-bit code');
    expect(() => assembler(64).mov(o.mem(o.rbx), 5)).toThrow('the size of the memory operand is open');
    expect(() => assembler(64).movzx(o.eax, o.mem(o.rbx))).toThrow('open');
    expect(() => assembler(64).mov(o.ah, o.r8b)).toThrow('no encoding');
    expect(() => assembler(32).mov(o.rax, 5)).toThrow('no encoding');
    expect(() => assembler(64).mov(o.al, 256)).toThrow('no encoding');
    expect(() => assembler(64).add(o.rax, 0x80000000)).toThrow('no encoding');
    expect(() => assembler(64).lock().mov(o.mem(o.rbx), o.eax)).toThrow('no encoding');
    expect(() => assembler(64).push(o.eax)).toThrow('no encoding');
  });

  it('takes the shortest encoding', () => {
    const length = (bits: CodeBits, build: (a: ReturnType<typeof assembler>) => unknown): number => {
      const a = assembler(bits);
      build(a);
      return a.assemble().bytes.length;
    };
    expect(length(64, (a) => a.add(o.eax, 0x1234))).toBe(5); // 05, without ModRM
    expect(length(64, (a) => a.and(o.ecx, 0xffffffef))).toBe(3); // 83, sign-extended
    expect(length(32, (a) => a.mov(o.eax, o.mem(0x1000)))).toBe(5); // A1
    expect(length(64, (a) => a.mov(o.eax, o.mem(0x1000)))).toBe(7);
    expect(length(64, (a) => a.shl(o.eax, 1))).toBe(2);
    expect(length(32, (a) => a.inc(o.eax))).toBe(1);
    expect(length(64, (a) => a.xchg(o.rcx, o.rax))).toBe(2);
    expect(length(64, (a) => a.push(5))).toBe(2);
  });

  it('gives branches the shortest reach, also where one growing pushes another out of reach', () => {
    const a = assembler(64);
    a.label('start').jmp('.far').jmp('.near').reserve(123).label('.near').reserve(2).label('.far').ret();
    // .near is 123 away, .far 127 with two short jumps: both fit.
    expect(a.assemble().bytes.length).toBe(2 + 2 + 123 + 2 + 1);
    const b = assembler(64);
    b.label('start').jmp('.far').jmp('.near').reserve(126).label('.near').reserve(2).label('.far').ret();
    expect(b.assemble().bytes.length).toBe(5 + 2 + 126 + 2 + 1);
    const c = assembler(64);
    c.label('start').label('.back').reserve(126).jnz('.back').jnz('.back');
    expect([...c.assemble().bytes.slice(126)]).toEqual([0x75, 0x80, 0x0f, 0x85, 0x7a, 0xff, 0xff, 0xff]);
  });

  it('keeps local labels apart, and refuses unknown and repeated ones', () => {
    const a = assembler(32);
    a.label('one').label('.loop').jmp('.loop').label('two').label('.loop').jmp('.loop').jmp('one.loop');
    expect([...a.assemble().bytes]).toEqual([0xeb, 0xfe, 0xeb, 0xfe, 0xeb, 0xfa]);
    expect(() => assembler(32).label('one').jmp('.nowhere').assemble()).toThrow(/one\.nowhere/);
    expect(() => assembler(32).label('one').label('one')).toThrow('twice');
  });

  it('leaves symbols of other objects to relocations, and pads with the recommended NOPs', () => {
    const a = assembler(64);
    a.label('f')
      .call('g')
      .mov(o.eax, o.dword('table', 4))
      .mov(o.dword(o.rdi, o.address('base')), o.esi)
      .align(16)
      .dq(o.address('f', 1));
    const { bytes, relocations, symbols, alignment } = a.assemble();
    expect(alignment).toBe(16);
    expect([...symbols]).toEqual([['f', 0]]);
    expect(relocations).toEqual([
      { offset: 1, bytes: 4, kind: 'relative', symbol: 'g', addend: -4 },
      { offset: 7, bytes: 4, kind: 'relative', symbol: 'table', addend: 0 },
      { offset: 13, bytes: 4, kind: 'signed', symbol: 'base', addend: 0 },
      { offset: 32, bytes: 8, kind: 'absolute', symbol: 'f', addend: 1 },
    ]);
    expect(hex([...bytes.slice(17, 32)])).toBe('66 0f 1f 84 00 00 00 00 00 66 0f 1f 44 00 00');
  });
});

const nasm = ((): string | undefined => {
  try {
    return execFileSync('nasm', ['--version'], { encoding: 'utf8' });
  } catch {
    return undefined;
  }
})();

// NASM has other names for these, or means another size by them, or shortens them to another instruction (mov rax, 1).
const NOT_NASM = new RegExp(
  `^(${[
    'callFar jmpFar retf[wdq] jrcxz f?xsave fxrstor xrstor nop ud[01] mov$ prefetch fn?disi fneni fnsetpm ffreep',
    'fstp fcom fxch fucom str sldt smsw lar lsl movq movd$ xlat insd outsd salc fld fst enter pextr push pinsrw',
    'crc32 cvt xchg invpcid sysretq',
  ]
    .join(' ')
    .replaceAll(' ', '|')})`,
);

describe.skipIf(!nasm)('NASM', () => {
  it.each(MODES)('assembles the listing of %i-bit code to the same bytes', (bits) => {
    const lines: string[] = [];
    const ours: string[] = [];
    turn = 0;
    for (const [name, candidates] of instructionNames()) {
      if (NOT_NASM.test(name)) continue;
      for (const { form } of candidates) {
        if (!exists(form, bits)) continue;
        for (const operands of operandLists(form, bits)) {
          if (
            operands.some((operand) => typeof operand === 'string') ||
            operands.some((operand) => typeof operand === 'object' && operand.kind === 'memory' && operand.index && !operand.base)
          )
            continue;
          const a = assembler(bits);
          try {
            a.instruction(name, operands);
          } catch {
            continue;
          }
          const {
            bytes,
            lines: [line],
          } = a.assemble();
          lines.push(line.text);
          ours.push(hex([...bytes]));
        }
      }
    }
    const directory = mkdtempSync(join(tmpdir(), 'exitless-nasm-'));
    try {
      const source = join(directory, 'a.asm');
      const listing = join(directory, 'a.lst');
      const run = (): void => {
        writeFileSync(source, [`bits ${bits}`, 'default abs', ...lines].join('\n'));
        execFileSync('nasm', ['-f', 'bin', '-l', listing, '-w-all', '-o', join(directory, 'a.bin'), source], { stdio: 'pipe' });
      };
      try {
        run();
      } catch (error) {
        // Its syntax is another one in places: those lines are left out.
        for (const [, line] of String((error as { stderr: Buffer }).stderr).matchAll(/a\.asm:(\d+): error/g)) {
          lines[Number(line) - 3] = '';
        }
        run();
      }
      const theirs: string[] = [];
      for (const line of readFileSync(listing, 'utf8').split('\n')) {
        const match = /^\s*(\d+) [0-9A-F]{8} ([0-9A-F]+)(-?)/.exec(line);
        if (match) theirs[Number(match[1]) - 3] = (theirs[Number(match[1]) - 3] ?? '') + match[2];
      }
      const differences = lines.flatMap((text, i) =>
        !text || theirs[i]?.toLowerCase() === ours[i].replaceAll(' ', '') ? [] : [`${text}: ${ours[i]}, NASM ${theirs[i]}`],
      );
      expect(lines.filter(Boolean).length).toBeGreaterThan(lines.length * 0.95);
      expect(differences.slice(0, 40)).toEqual([]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('the lists of names', () => {
  it('name instructions that there are', () => {
    expect([...INSTRUCTION_NAMES].filter((name) => !instructionNames().has(name))).toEqual([]);
  });

  it('leave out only encodings that repeat another one', () => {
    const left = forms
      .filter((form) => formName(form) === undefined)
      .map((form) => `${form.instruction.mnemonic} ${form.encoding.text}`);
    expect(left).toMatchInlineSnapshot(`
      [
        "ADD 82/0 Eb Ib ; n64",
        "ADC 82/2 Eb Ib ; n64",
        "SUB 82/5 Eb Ib ; n64",
        "SBB 82/3 Eb Ib ; n64",
        "CMP 82/7 Eb Ib ; n64",
        "OR 82/1 Eb Ib ; n64",
        "AND 82/4 Eb Ib ; n64",
        "XOR 82/6 Eb Ib ; n64",
        "TEST F6/1 Eb Ib",
        "TEST F7/1 Ev Iz",
        "SHL C0/6 Eb Ib",
        "SHL C1/6 Ev Ib",
        "SHL D0/6 Eb 1",
        "SHL D1/6 Ev 1",
        "SHL D2/6 Eb CL",
        "SHL D3/6 Ev CL",
        "NOP 0F 19 Ev",
        "NOP 0F 1A Ev",
        "NOP 0F 1B Ev",
        "NOP 0F 1C Ev",
        "NOP 0F 1D Ev",
        "NOP 0F 1E Ev",
        "PREFETCH 0F 18 Ev",
        "PREFETCH 0F 0D M",
        "PCMPESTRM 66 0F 3A 60 Vdq Wdq Ib ; W1",
        "PCMPESTRI 66 0F 3A 61 Vdq Wdq Ib ; W1",
        "INSD 6D Yz ; s64",
        "OUTSD 6F Xz ; s64",
        "SYSRET 0F 07 ; o64 s16",
        "SYSRET 0F 07 ; n64",
        "FXCH DD C8+ i",
        "FXCH DF C8+ i",
        "FSTPNCE D9 D8+ i",
        "FSTP DF D0+ i",
        "FSTP DF D8+ i",
        "FCOM DC D0+ i",
        "FCOMP DC D8+ i",
        "FCOMP DE D0+ i",
      ]
    `);
  });
});
