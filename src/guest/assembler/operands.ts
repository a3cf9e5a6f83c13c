/**
 * Operands of the assembler: registers as constants, memory written as a listing writes it (`qword(rbx, times(rcx, 8), 16)`),
 * symbols by name. Text is NASM's syntax. SDM 1 chapter 3.
 */

export type RegisterClass = 'general' | 'segment' | 'control' | 'debug' | 'mmx' | 'xmm' | 'x87';

export interface Register<Class extends RegisterClass = RegisterClass> {
  readonly kind: 'register';
  readonly class: Class;
  readonly name: string;
  readonly bits: number;
  /** As ModRM has it, with REX's bit: 0 to 15. */
  readonly number: number;
  /** AH, CH, DH or BH, which have the numbers 4 to 7 where there is no REX prefix. */
  readonly high: boolean;
}

export type GeneralRegister = Register<'general'>;

/** A register times 2, 4 or 8 as an index. */
export interface ScaledRegister {
  readonly kind: 'scaled';
  readonly register: GeneralRegister;
  readonly scale: 1 | 2 | 4 | 8;
}

/** A symbol's absolute address plus an addend: as an immediate, a displacement, or data. */
export interface Address {
  readonly kind: 'address';
  readonly symbol: string;
  readonly addend: number;
}

export interface Memory {
  readonly kind: 'memory';
  /** What is accessed; 0 where the instruction or another operand says it. */
  readonly bits: number;
  readonly segment: Register<'segment'> | undefined;
  readonly base: GeneralRegister | undefined;
  readonly index: GeneralRegister | undefined;
  readonly scale: 1 | 2 | 4 | 8;
  readonly displacement: number;
  /** Added to the displacement. */
  readonly symbol: string | undefined;
  /** Relative to RIP; legacy modes, which cannot, take the symbol's address. */
  readonly relative: boolean;
}

/** The operand of a direct far jump or call. */
export interface FarPointer {
  readonly kind: 'far';
  readonly selector: number;
  readonly offset: number | Address;
}

export type Immediate = number | bigint | Address;
/** A label: a global one, or `.name`, local to the last global one. */
export type Target = string;
export type Operand = Register | Memory | Immediate | FarPointer | Target;
/** What can be written to, or read as r/m. */
export type Place = Register | Memory;

const named = <Class extends RegisterClass>(
  registerClass: Class,
  bits: number,
  names: string,
  first = 0,
  high = false,
): Register<Class>[] =>
  names.split(' ').map((name, i) => ({ kind: 'register', class: registerClass, name, bits, number: first + i, high }));
const numbered = (prefix: string, from: number, to: number, suffix = ''): string =>
  Array.from({ length: to - from + 1 }, (_, i) => `${prefix}${from + i}${suffix}`).join(' ');

export const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi] = named('general', 64, 'rax rcx rdx rbx rsp rbp rsi rdi');
export const [r8, r9, r10, r11, r12, r13, r14, r15] = named('general', 64, numbered('r', 8, 15), 8);
export const [eax, ecx, edx, ebx, esp, ebp, esi, edi] = named('general', 32, 'eax ecx edx ebx esp ebp esi edi');
export const [r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d] = named('general', 32, numbered('r', 8, 15, 'd'), 8);
export const [ax, cx, dx, bx, sp, bp, si, di] = named('general', 16, 'ax cx dx bx sp bp si di');
export const [r8w, r9w, r10w, r11w, r12w, r13w, r14w, r15w] = named('general', 16, numbered('r', 8, 15, 'w'), 8);
export const [al, cl, dl, bl, spl, bpl, sil, dil] = named('general', 8, 'al cl dl bl spl bpl sil dil');
export const [r8b, r9b, r10b, r11b, r12b, r13b, r14b, r15b] = named('general', 8, numbered('r', 8, 15, 'b'), 8);
export const [ah, ch, dh, bh] = named('general', 8, 'ah ch dh bh', 4, true);
export const [es, cs, ss, ds, fs, gs] = named('segment', 16, 'es cs ss ds fs gs');
export const [cr0, , cr2, cr3, cr4, , , , cr8] = named('control', 64, numbered('cr', 0, 15));
export const [dr0, dr1, dr2, dr3, , , dr6, dr7] = named('debug', 64, numbered('dr', 0, 7));
export const [mm0, mm1, mm2, mm3, mm4, mm5, mm6, mm7] = named('mmx', 64, numbered('mm', 0, 7));
export const [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7] = named('xmm', 128, numbered('xmm', 0, 7));
export const [xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15] = named('xmm', 128, numbered('xmm', 8, 15), 8);
export const [st0, st1, st2, st3, st4, st5, st6, st7] = named('x87', 80, numbered('st', 0, 7));

export const GENERAL_REGISTERS: Record<8 | 16 | 32 | 64, readonly GeneralRegister[]> = {
  8: [al, cl, dl, bl, spl, bpl, sil, dil, r8b, r9b, r10b, r11b, r12b, r13b, r14b, r15b],
  16: [ax, cx, dx, bx, sp, bp, si, di, r8w, r9w, r10w, r11w, r12w, r13w, r14w, r15w],
  32: [eax, ecx, edx, ebx, esp, ebp, esi, edi, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d],
  64: [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15],
};
export const SEGMENT_REGISTERS = [es, cs, ss, ds, fs, gs];
export const CONTROL_REGISTERS = [cr0, cr2, cr3, cr4, cr8];
export const DEBUG_REGISTERS = [dr0, dr1, dr2, dr3, dr6, dr7];
export const MMX_REGISTERS = [mm0, mm1, mm2, mm3, mm4, mm5, mm6, mm7];
export const XMM_REGISTERS = [
  xmm0,
  xmm1,
  xmm2,
  xmm3,
  xmm4,
  xmm5,
  xmm6,
  xmm7,
  xmm8,
  xmm9,
  xmm10,
  xmm11,
  xmm12,
  xmm13,
  xmm14,
  xmm15,
];
export const X87_REGISTERS = [st0, st1, st2, st3, st4, st5, st6, st7];

/** The same general register in another size. */
export const sized = (register: GeneralRegister, bits: 8 | 16 | 32 | 64): GeneralRegister =>
  GENERAL_REGISTERS[bits][register.number];

export const times = (register: GeneralRegister, scale: 1 | 2 | 4 | 8): ScaledRegister => ({ kind: 'scaled', register, scale });
export const address = (symbol: string, addend = 0): Address => ({ kind: 'address', symbol, addend });
export const far = (selector: number, offset: number | Address): FarPointer => ({ kind: 'far', selector, offset });

export type MemoryPart = Register | ScaledRegister | Address | number | string;

function memory(bits: number, parts: MemoryPart[]): Memory {
  let segment: Memory['segment'];
  let base: GeneralRegister | undefined;
  let index: GeneralRegister | undefined;
  let scale: Memory['scale'] = 1;
  let displacement = 0;
  let symbol: string | undefined;
  let relative = false;
  const malformed = (what: string): never => {
    throw new Error(`memory operand: ${what}`);
  };
  for (const part of parts) {
    if (typeof part === 'number') displacement += part;
    else if (typeof part === 'string' || part.kind === 'address') {
      if (symbol !== undefined) malformed('two symbols');
      relative = typeof part === 'string';
      symbol = typeof part === 'string' ? part : part.symbol;
      if (typeof part !== 'string') displacement += part.addend;
    } else if (part.kind === 'scaled') {
      if (index) malformed('two indices');
      ({ register: index, scale } = part);
    } else if (part.class === 'segment') segment = part as Register<'segment'>;
    else if (part.class !== 'general') malformed(`${part.name} is no address`);
    else if (!base) base = part as GeneralRegister;
    else if (!index) index = part as GeneralRegister;
    else malformed('three registers');
  }
  // RSP cannot be an index; where nothing is scaled, base and index are the same.
  if (index && (index.number === 4 || !base) && scale === 1) [base, index] = [index, base];
  if (index?.number === 4) malformed(`${index.name} cannot be an index`);
  return { kind: 'memory', bits, segment, base, index, scale, displacement, symbol, relative: relative && !base && !index };
}

/** Memory whose size follows from the other operands or from the instruction. */
export const mem = (...parts: MemoryPart[]): Memory => memory(0, parts);
export const byte = (...parts: MemoryPart[]): Memory => memory(8, parts);
export const word = (...parts: MemoryPart[]): Memory => memory(16, parts);
export const dword = (...parts: MemoryPart[]): Memory => memory(32, parts);
export const qword = (...parts: MemoryPart[]): Memory => memory(64, parts);
export const tword = (...parts: MemoryPart[]): Memory => memory(80, parts);
export const oword = (...parts: MemoryPart[]): Memory => memory(128, parts);
/** A machine word of the mode the code is for. */
export const native = (bits: 16 | 32 | 64, ...parts: MemoryPart[]): Memory => memory(bits, parts);

const SIZE_KEYWORDS: Record<number, string> = {
  8: 'byte ',
  16: 'word ',
  32: 'dword ',
  64: 'qword ',
  80: 'tword ',
  128: 'oword ',
};
const hex = (value: number | bigint): string => (value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`);
const signedHex = (value: number): string => (value < 0 ? hex(value) : `+${hex(value)}`);
const symbolic = (symbol: string, addend: number): string => (addend ? `${symbol}${signedHex(addend)}` : symbol);

function memoryText(operand: Memory): string {
  const { base, index, scale, symbol, displacement, segment, relative } = operand;
  const terms = [base?.name, index && (scale === 1 ? index.name : `${index.name}*${scale}`), symbol].filter(
    (term) => term !== undefined,
  );
  let text = terms.join('+');
  if (!terms.length) text = hex(displacement);
  else if (displacement) text += signedHex(displacement);
  return `${SIZE_KEYWORDS[operand.bits] ?? ''}[${segment ? `${segment.name}:` : ''}${relative ? 'rel ' : ''}${text}]`;
}

/** As NASM writes it. */
export function operandText(operand: Operand): string {
  if (typeof operand === 'string') return operand;
  if (typeof operand === 'number' || typeof operand === 'bigint') return hex(operand);
  switch (operand.kind) {
    case 'register':
      return operand.name;
    case 'memory':
      return memoryText(operand);
    case 'address':
      return symbolic(operand.symbol, operand.addend);
    case 'far':
      return `${hex(operand.selector)}:${operandText(operand.offset)}`;
  }
}
