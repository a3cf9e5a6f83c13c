/**
 * Which forms of the engine's instruction definitions have vectors. A form here is an encoding of a definition with an
 * operand size, a register or memory operand, and the prefixes that mean something; a vector counts for the form that
 * the engine's decoder finds in its bytes, so names play no part.
 */

import '../../src/isa/all.ts';
import { Decoder, type Form, forms } from '../../src/isa/decoder.ts';
import { decodeVectors } from './vector-file.ts';

/** Forms (by mnemonic and encoding) that cannot have vectors from a user-mode recording, and why. */
export const WITHOUT_VECTORS: { reason: string; forms: RegExp }[] = [
  { reason: 'depend on more than the state', forms: /^(CPUID|RDTSCP?|RDPMC|RDRAND|RDSEED|RDPID|XGETBV) / },
  { reason: 'enter the kernel', forms: /^(SYSCALL|SYSENTER|SYSEXIT|INT|INTO|INT1|VMCALL|VMMCALL) / },
  { reason: 'are emulated by the kernel under UMIP', forms: /^(SGDT|SIDT|SLDT|SMSW|STR) / },
  { reason: 'load segments, whose selectors are no part of the state', forms: /^(L[DEFGS]S|IRET|\w+ far|POP \[0F A[19]|MOV \[8E) ?/ },
  { reason: 'depend on XCR0', forms: /^XSETBV / },
];

export interface Coverage {
  /** Forms, by description, with their number of vectors. */
  covered: Map<string, number>;
  missing: string[];
  /** Without vectors for a reason. */
  excused: Map<string, string[]>;
}

function describe(form: Form, bits: number, kind: string, prefix: string): string {
  const { instruction, encoding } = form;
  return `${prefix}${instruction.mnemonic} [${encoding.text}]${encoding.sized ? ` ${bits}` : ''}${kind && ` ${kind}`}`;
}

/** Another encoding of the same opcode is for one operand size only and takes that from this one. */
function taken({ encoding: mine }: Form, bits: number): boolean {
  if (mine.modifiers.has(`s${bits}`)) return false;
  return forms.some(({ encoding: other }) =>
    other.modifiers.has(`s${bits}`) && other.map === mine.map && other.opcode === mine.opcode && other.prefix === mine.prefix &&
    other.digit === mine.digit && other.modrm === mine.modrm);
}

function sizesOf({ encoding }: Form): number[] {
  const { modifiers, operands, prefix } = encoding;
  for (const size of [16, 32, 64]) if (modifiers.has(`s${size}`)) return [size];
  if (!encoding.sized || modifiers.has('f64')) return [64];
  if (modifiers.has('d64')) return [16, 64];
  const full = operands.some(({ code, size }) => (size !== '' && 'vzp'.includes(size)) || code === 'eAX');
  if (!full) return [32, 64];
  // A mandatory prefix that is the operand size's, or keeps that away; with REX.W it does not matter.
  return prefix === '66' ? [16] : prefix === 'none' ? [32, 64] : [16, 32, 64];
}

function kindsOf({ encoding, rmPosition, allowsMemory, allowsRegister }: Form): string[] {
  if (rmPosition < 0 || encoding.modrm >= 0) return [''];
  return [...(allowsRegister ? ['reg'] : []), ...(allowsMemory ? ['mem'] : [])];
}

/** All forms of 64-bit mode that the definitions have. */
function expand(form: Form): string[] {
  const { instruction, encoding } = form;
  const repeats = instruction.repeat === 'repe' ? ['', 'REPE ', 'REPNE '] : instruction.repeat === 'rep' ? ['', 'REPE '] : [''];
  const lockable = instruction.lock && /^[EM]$/.test(encoding.operands[0]?.code ?? '');
  return sizesOf(form).filter((bits) => !taken(form, bits)).flatMap((bits) => kindsOf(form).flatMap((kind) => [
    ...repeats.map((prefix) => describe(form, bits, kind, prefix)),
    ...(lockable && kind === 'mem' ? [describe(form, bits, kind, 'LOCK ')] : []),
  ]));
}

export function measureCoverage(files: Iterable<Uint8Array>): Coverage {
  const decoder = new Decoder();
  const covered = new Map<string, number>();
  for (const file of files) {
    for (const { code } of decodeVectors(file)) {
      if (decoder.decode(code, 0, code.length, 64) !== 'ok') continue;
      const { form, operandBits, mod, lock, repeat } = decoder.result;
      const prefix = lock ? 'LOCK ' : form.instruction.repeat && repeat !== 'none' ? (repeat === 'rep' ? 'REPE ' : 'REPNE ') : '';
      const sizes = sizesOf(form);
      const bits = sizes.includes(operandBits) ? operandBits : sizes[0];
      const kinds = kindsOf(form);
      const key = describe(form, bits, kinds[0] === '' ? '' : mod === 3 ? 'reg' : 'mem', prefix);
      covered.set(key, (covered.get(key) ?? 0) + 1);
    }
  }
  const coverage: Coverage = { covered, missing: [], excused: new Map() };
  for (const form of forms) {
    if (form.encoding.modifiers.has('n64')) continue;
    for (const name of expand(form)) {
      if (covered.has(name)) continue;
      const reason = WITHOUT_VECTORS.find((entry) => entry.forms.test(name))?.reason;
      if (reason) coverage.excused.set(reason, [...(coverage.excused.get(reason) ?? []), name]);
      else coverage.missing.push(name);
    }
  }
  return coverage;
}

export function formatCoverage({ covered, missing, excused }: Coverage): string {
  return [
    `${covered.size} forms with vectors`,
    ...[...excused].map(([reason, names]) => {
      const mnemonics = [...new Set(names.map((name) => name.split(' [')[0]))];
      return `${names.length} forms without, that ${reason}: ${mnemonics.join(', ')}`;
    }),
    `${missing.length} forms without vectors${missing.length ? ':' : ''}`,
    ...missing.map((name) => `  ${name}`),
  ].join('\n');
}
