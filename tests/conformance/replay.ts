/**
 * Replays vector files on a target and says, readably, where its outcome differs from the real processor's.
 */

import { createRequire } from 'node:module';
import { Flag, MEMORY_WORD, nameOfWord, RECORDED_FLAGS, Word } from './machine-state.ts';
import { undefinedBehaviour } from './undefined-flags.ts';
import { decodeVectors, type Fault, type Outcome, type Vector } from './vector-file.ts';

/**
 * Something that runs one instruction: interpreter, JIT, the processor itself. It maps the windows of machine-state.ts as they
 * are described (user pages), takes `vector.input`, runs exactly one instruction (a repeated string instruction to its
 * end) or the fault it raises, and hands back all registers and memory. The arrays it returns may be reused.
 */
export interface ConformanceTarget {
  name: string;
  /** A vector that will be run soon, for a target that compiles many at once. */
  prepare?(vector: Vector): void;
  run(vector: Vector): Outcome;
}

/** Vectors that a target prepares before it runs them. */
const PREPARED_TOGETHER = 512;

export interface ComparisonPolicy {
  /** The six sticky exception flags of MXCSR: compared, or left out together with the vectors that end in #XM. */
  mxcsrFlags: 'exact' | 'ignore';
  /** Vectors that this rejects are counted as skipped. */
  accepts?: (vector: Vector) => boolean;
}

export const EXACT: ComparisonPolicy = { mxcsrFlags: 'exact' };

export interface Difference {
  what: string;
  expected: string;
  actual: string;
}

export interface Mismatch {
  form: string;
  index: number;
  report: string;
}

const MXCSR_FLAGS = 0x3fn;
const SIMD_EXCEPTION = 19;
const hex = (value: bigint, digits = 16): string => value.toString(16).padStart(digits, '0');

const EXCEPTIONS: Record<number, string> = {
  0: '#DE', 1: '#DB', 3: '#BP', 4: '#OF', 5: '#BR', 6: '#UD', 7: '#NM', 10: '#TS', 11: '#NP', 12: '#SS', 13: '#GP',
  14: '#PF', 16: '#MF', 17: '#AC', 19: '#XM',
};

function nameFault(fault: Outcome['fault']): string {
  if (!fault) return 'no fault';
  const name = EXCEPTIONS[fault.vector] ?? `vector ${fault.vector}`;
  return `${name} error code ${fault.errorCode.toString(16)}${fault.vector === 14 ? ` at ${fault.address.toString(16)}` : ''}`;
}

const FLAG_NAMES = {
  cf: Flag.carry, pf: Flag.parity, af: Flag.adjust, zf: Flag.zero, sf: Flag.sign, df: Flag.direction, of: Flag.overflow,
  nt: Flag.nestedTask, ac: Flag.alignmentCheck, id: Flag.identification,
};

function nameFlags(value: bigint): string {
  const set = Object.entries(FLAG_NAMES).filter(([, bit]) => value & BigInt(bit));
  return `${hex(value, 6)} ${set.map(([name]) => name).join(' ') || '-'}`;
}

function sameFault(expected: Fault | undefined, actual: Fault | undefined, anywhereInPage: boolean): boolean {
  if (!expected || !actual) return expected === actual;
  const shift = anywhereInPage ? 12n : 0n;
  const sameKind = expected.vector === actual.vector && expected.errorCode === actual.errorCode;
  return sameKind && expected.address >> shift === actual.address >> shift;
}

const floats = new DataView(new ArrayBuffer(8));

/** Reciprocal and reciprocal square root: within 1.5 × 2^-12 of the exact value, so within twice that of each other. */
function approximatelyEqual(expected: bigint, actual: bigint): boolean {
  for (const shift of [0n, 32n]) {
    const [a, b] = [(expected >> shift) & 0xffff_ffffn, (actual >> shift) & 0xffff_ffffn];
    if (a === b) continue;
    floats.setUint32(0, Number(a));
    floats.setUint32(4, Number(b));
    const [x, y] = [floats.getFloat32(0), floats.getFloat32(4)];
    if (!(Math.abs(x - y) <= 3 * 2 ** -12 * Math.abs(x))) return false;
  }
  return true;
}

const C1 = 1n << 9n;

/** Of the x87: status words equal but for C1, or registers with numbers at most one unit in the last place apart. */
function sameToTheLastPlace(word: number, expected: BigUint64Array, actual: BigUint64Array): boolean {
  if (word === Word.fsw) return (expected[word] | C1) === (actual[word] | C1);
  if (word < Word.significand || word >= Word.xmm) return false;
  const i = word < Word.exponent ? word - Word.significand : word - Word.exponent;
  const [sign, otherSign] = [expected, actual].map((words) => words[Word.exponent + i] >> 15n);
  // Significands of neighbouring exponents continue each other once the integer bit is taken out.
  const [x, y] = [expected, actual].map((words) =>
    ((words[Word.exponent + i] & 0x7fffn) << 63n) | (words[Word.significand + i] & 0x7fff_ffff_ffff_ffffn));
  return sign === otherSign && x - y <= 1n && y - x <= 1n;
}

const isXmm = (word: number): boolean => word >= Word.xmm && word < Word.fsBase;

const compareBytes = (a: BigUint64Array | Uint8Array, b: BigUint64Array | Uint8Array): boolean =>
  Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.byteLength), Buffer.from(b.buffer, b.byteOffset, b.byteLength)) === 0;

/** What of an outcome differs from what the vector expects, after what is undefined has been left out. */
export function compareOutcome(vector: Vector, actual: Outcome, policy: ComparisonPolicy = EXACT): Difference[] {
  const { expected } = vector;
  const differences: Difference[] = [];
  const loose = undefinedBehaviour(vector);
  if (!sameFault(expected.fault, actual.fault, loose.faultAddress === 'page')) {
    differences.push({ what: 'fault', expected: nameFault(expected.fault), actual: nameFault(actual.fault) });
  }
  const sameRegisters = compareBytes(expected.registers, actual.registers);
  const sameMemory = compareBytes(expected.memory, actual.memory);
  if (sameRegisters && sameMemory) return differences;
  if (!sameRegisters) {
    for (let word = 0; word < Word.count; word++) {
      const [want, have] = [expected.registers[word], actual.registers[word]];
      if (want === have) continue;
      const entry = { what: nameOfWord(word), expected: hex(want), actual: hex(have) };
      if (word === Word.rflags) {
        const mask = BigInt(RECORDED_FLAGS & ~(expected.fault ? 0 : loose.flags));
        if ((want & mask) === (have & mask)) continue;
        differences.push({ ...entry, expected: nameFlags(want & mask), actual: nameFlags(have & mask) });
      } else if (word === Word.mxcsr) {
        if (policy.mxcsrFlags === 'exact' || (want | MXCSR_FLAGS) !== (have | MXCSR_FLAGS)) differences.push(entry);
      } else if (word < Word.rip && !expected.fault && loose.results === 'any') continue;
      else if (isXmm(word) && loose.results === 'approximate' && approximatelyEqual(want, have)) continue;
      else if (loose.results === 'last place' && sameToTheLastPlace(word, expected.registers, actual.registers)) continue;
      else differences.push(entry);
    }
  }
  if (!sameMemory && (expected.fault || loose.results !== 'any')) {
    const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const [wanted, had] = [view(expected.memory), view(actual.memory)];
    for (let offset = 0; offset < expected.memory.length; offset += 8) {
      const [want, have] = [wanted.getBigUint64(offset, true), had.getBigUint64(offset, true)];
      if (want !== have) differences.push({ what: nameOfWord(MEMORY_WORD + offset / 8), expected: hex(want), actual: hex(have) });
    }
  }
  return differences;
}

/** Disassembly where iced-x86 is installed. */
function disassemblyOf(code: Uint8Array, address: number): string {
  try {
    const iced = createRequire(import.meta.url)('iced-x86') as typeof import('iced-x86');
    const decoder = new iced.Decoder(64, code, iced.DecoderOptions.AMD);
    decoder.ip = BigInt(address);
    return new iced.Formatter(iced.FormatterSyntax.Nasm).format(decoder.decode());
  } catch {
    return '';
  }
}

/** A mismatch for people: the instruction, its input (all of it), and what differs. */
export function describeMismatch(vector: Vector, differences: Difference[], target = 'target'): Mismatch {
  const { form, index, code, codeAddress, input } = vector;
  const bytes = Buffer.from(code).toString('hex').replace(/..(?=.)/g, '$& ');
  const register = (word: number): string => `${nameOfWord(word).padStart(6)} ${hex(input.registers[word])}`;
  const rows = (from: number, count: number, columns: number): string[] =>
    Array.from({ length: count / columns }, (_, row) =>
      `    ${Array.from({ length: columns }, (_, column) => register(from + row * columns + column)).join('  ')}`);
  const xmm = (i: number): string => `${hex(input.registers[Word.xmm + 2 * i + 1])}_${hex(input.registers[Word.xmm + 2 * i])}`;
  const operands = form.split('/')[0].replace(/^\w+ /, '');
  const vectorDiffers = differences.some(({ what }) => /^(xmm|mm|mxcsr|f[cst]w|exponent)/.test(what));
  const usesVectors = vectorDiffers || /[VWUPQN]|MXCSR/.test(operands);
  const vectorRows = usesVectors
    ? [
        `     mxcsr ${hex(input.registers[Word.mxcsr], 4)}`,
        ...rows(Word.significand, 8, 4),
        ...Array.from({ length: 16 }, (_, i) => `    ${`xmm${i}`.padStart(6)} ${xmm(i)}`),
      ]
    : [];
  const width = Math.max('expected'.length, target.length);
  const report = [
    `${form} #${index}: ${bytes}  ${disassemblyOf(code, codeAddress)}`,
    '  input',
    ...rows(0, 16, 4),
    `${register(Word.rip).replace(/^/, '    ')}  rflags ${nameFlags(input.registers[Word.rflags])}`,
    ...vectorRows,
    '  differences (expected is the real processor)',
    ...differences.slice(0, 16).flatMap(({ what, expected, actual }) => [
      `    ${what}: ${'expected'.padEnd(width)} ${expected}`,
      `    ${' '.repeat(what.length)}  ${target.padEnd(width)} ${actual}`,
    ]),
    ...(differences.length > 16 ? [`    … and ${differences.length - 16} more`] : []),
  ].join('\n');
  return { form, index, report };
}

export interface ReplaySummary {
  vectors: number;
  skipped: number;
  forms: Set<string>;
  mismatchCount: number;
  /** Described: at most `limit` and one for each form first. */
  mismatches: Mismatch[];
  /** Mismatches by form. */
  failing: Map<string, number>;
}

/** The vectors of a file that a policy holds a target to, for each whether it does. A target prepares them some at a time. */
function* chosen(file: Uint8Array, target: ConformanceTarget, { mxcsrFlags, accepts }: ComparisonPolicy): Generator<{ vector: Vector; accepted: boolean }, void> {
  // What is prepared is decoded twice: vectors share their arrays.
  const ahead = target.prepare && decodeVectors(file);
  const verdicts: boolean[] = [];
  const judge = (vector: Vector): boolean => !(mxcsrFlags === 'ignore' && vector.expected.fault?.vector === SIMD_EXCEPTION) && accepts?.(vector) !== false;
  let next = 0;
  for (const vector of decodeVectors(file)) {
    if (ahead && next === verdicts.length) {
      verdicts.length = next = 0;
      while (verdicts.length < PREPARED_TOGETHER) {
        const { value: coming } = ahead.next();
        if (!coming) break;
        const accepted = judge(coming);
        verdicts.push(accepted);
        if (accepted) target.prepare?.(coming);
      }
    }
    yield { vector, accepted: ahead ? verdicts[next++] : judge(vector) };
  }
}

/** Replays a file. Describes the first mismatch of each form, up to `limit` of them. */
export function replay(file: Uint8Array, target: ConformanceTarget, policy: ComparisonPolicy = EXACT, limit = 20): ReplaySummary {
  const summary: ReplaySummary = {
    vectors: 0, skipped: 0, forms: new Set(), mismatchCount: 0, mismatches: [], failing: new Map(),
  };
  for (const { vector, accepted } of chosen(file, target, policy)) {
    if (!accepted) {
      summary.skipped++;
      continue;
    }
    summary.vectors++;
    summary.forms.add(vector.form);
    const differences = compareOutcome(vector, target.run(vector), policy);
    if (!differences.length) continue;
    summary.mismatchCount++;
    const before = summary.failing.get(vector.form) ?? 0;
    summary.failing.set(vector.form, before + 1);
    if (before > 0 || summary.mismatches.length >= limit) continue;
    summary.mismatches.push(describeMismatch(vector, differences, target.name));
  }
  return summary;
}

/** A summary for the terminal: counts, failing forms, reports. Empty when nothing mismatches. */
export function formatSummary(summary: ReplaySummary): string {
  if (summary.mismatchCount === 0) return '';
  const forms = [...summary.failing].sort((a, b) => b[1] - a[1]).map(([form, count]) => `  ${count} × ${form}`);
  return [
    `${summary.mismatchCount} of ${summary.vectors} vectors mismatch, in ${summary.failing.size} of ${summary.forms.size} forms`,
    ...forms.slice(0, 60), ...(forms.length > 60 ? [`  … and ${forms.length - 60} more forms`] : []), '',
    ...summary.mismatches.map(({ report }) => `${report}\n`),
  ].join('\n');
}
