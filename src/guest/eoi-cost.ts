/**
 * What ending an interrupt costs in instructions, by reading the code: from the interrupt handler's call of `ack_APIC_irq` to its
 * return, on every path that can be taken. Constants are followed through registers, so that comparisons whose outcome is known
 * have one; where it isn't (PV EOI's word), there are two paths.
 *
 * Counted: instructions executed, RET included, the handler's CALL not; conditional branches, taken or not; other jumps, calls
 * and returns; reads and writes of data and stack memory, a read-modify-write as both, the APIC's registers apart.
 */

import type { Line } from './assembler/assembler.ts';
import { type Memory, type Operand, operandText, type Register } from './assembler/operands.ts';
import { METHODS, structureOffset, type ApicDriver } from './apic/apic-driver.ts';
import { acknowledgeSymbol, type EoiState, functionCode, methodSymbol, nativeEoiSymbol } from './apic/driver-code.ts';
import { NATIVE_EOI_POINTER } from './apic/pv-eoi.ts';

export interface EoiPath {
  /** What decides for it: 'always', or outcomes of the branches that are not known. */
  when: string;
  instructions: number;
  conditionalBranches: number;
  /** JMP, CALL and RET. */
  transfers: number;
  memoryReads: number;
  memoryWrites: number;
  /** How the interrupt controller is told: what exits. */
  apicAccess: 'none' | 'memory' | 'msr';
  /** Functions on the way, in order. */
  functions: string[];
  lines: Line[];
}

/** What is known of a register. */
type Known = number | 'apic' | undefined;

interface Walk {
  path: EoiPath;
  outcomes: string[];
  registers: Map<number, Known>;
  /** Zero flag, and carry flag, where known. */
  zero: boolean | undefined;
  carry: boolean | undefined;
  /** What set the flags, for the description of an outcome. */
  flagsOf: string;
}

const MAX_INSTRUCTIONS = 1000;
const WRITES_ONLY = new Set(['mov', 'sete', 'setne']);
const READS_ONLY = new Set(['cmp', 'test', 'bt']);
const isRegister = (operand: Operand | undefined): operand is Register =>
  typeof operand === 'object' && operand.kind === 'register';
const isMemory = (operand: Operand | undefined): operand is Memory => typeof operand === 'object' && operand.kind === 'memory';

/** Data that is set at boot and the same ever after, on a machine that works. */
const SETTLED: Record<string, number> = { boot_cpu_has_apic: 0, disable_apic: 0 };

/** The paths of an EOI, the shortest first. */
export function eoiPaths(driver: ApicDriver, state: EoiState): EoiPath[] {
  const finished: EoiPath[] = [];
  const start: Walk = {
    path: {
      when: '',
      instructions: 0,
      conditionalBranches: 0,
      transfers: 0,
      memoryReads: 0,
      memoryWrites: 0,
      apicAccess: 'none',
      functions: [],
      lines: [],
    },
    outcomes: [],
    registers: new Map(),
    zero: undefined,
    carry: undefined,
    flagsOf: '',
  };
  const walker = new Walker(driver, state, (walk) => finished.push({ ...walk.path, when: walk.outcomes.join(', ') || 'always' }));
  walker.run(acknowledgeSymbol(state), start);
  return finished.sort((a, b) => a.instructions - b.instructions);
}

class Walker {
  private readonly driver: ApicDriver;
  private readonly state: EoiState;
  private readonly finish: (walk: Walk) => void;

  constructor(driver: ApicDriver, state: EoiState, finish: (walk: Walk) => void) {
    this.driver = driver;
    this.state = state;
    this.finish = finish;
  }

  run(symbol: string, walk: Walk, from = 0): void {
    const code = functionCode(symbol, this.driver.bits);
    if (!code) throw new Error(`${symbol} is no function of the driver layer`);
    if (from === 0) walk.path.functions.push(symbol);
    for (let at = from; at < code.lines.length; at++) {
      const line = code.lines[at];
      if (line.kind !== 'instruction') continue;
      if (++walk.path.instructions > MAX_INSTRUCTIONS) throw new Error(`${symbol}: the path does not end`);
      walk.path.lines.push(line);
      const { name, operands } = line;
      this.countMemory(walk, line);
      if (name === 'ret') {
        walk.path.transfers++;
        this.finish(walk);
        return;
      }
      if (name === 'jmp') {
        walk.path.transfers++;
        if (typeof operands[0] === 'string' && operands[0].startsWith('.')) at = this.labelLine(code.lines, operands[0]);
        else {
          this.run(this.target(walk, operands[0]), walk);
          return;
        }
        continue;
      }
      if (name.startsWith('j')) {
        walk.path.conditionalBranches++;
        const destination = this.labelLine(code.lines, operands[0] as string);
        const taken = this.isTaken(name, walk);
        if (taken === undefined) {
          const other = structuredClone(walk);
          other.outcomes.push(`${walk.flagsOf} set`);
          this.run(symbol, other, destination);
          walk.outcomes.push(`${walk.flagsOf} clear`);
        } else if (taken) at = destination;
        continue;
      }
      if (name === 'call') throw new Error(`${symbol}: calls are not followed`);
      this.execute(walk, line);
    }
    throw new Error(`${symbol}: fell off its end`);
  }

  private labelLine(lines: readonly Line[], label: string): number {
    const at = lines.findIndex(({ kind, text }) => kind === 'label' && text === `${label}:`);
    if (at < 0) throw new Error(`no label ${label}`);
    return at;
  }

  private target(walk: Walk, operand: Operand): string {
    if (typeof operand === 'string') return operand;
    if (isMemory(operand)) {
      if (operand.symbol === NATIVE_EOI_POINTER) return nativeEoiSymbol(this.driver);
      const word = this.driver.bits === 64 ? 8 : 4;
      const method = METHODS.find((candidate) => structureOffset(candidate, word) === operand.displacement);
      if (operand.base && walk.registers.get(operand.base.number) === 'apic' && method)
        return methodSymbol(this.driver, method, this.state) as string;
    }
    throw new Error(`cannot follow a jump to ${operandText(operand)}`);
  }

  private countMemory({ path }: Walk, { name, operands }: Line): void {
    if (name === 'wrmsr') path.apicAccess = 'msr';
    if (name === 'ret' || name === 'pop') path.memoryReads++;
    if (name === 'push') path.memoryWrites++;
    const at = operands.findIndex((operand) => isMemory(operand));
    if (at < 0 || name === 'lea') return;
    const memory = operands[at] as Memory;
    if (memory.symbol === 'APIC_BASE') {
      path.apicAccess = 'memory';
      return;
    }
    const writes = at === 0 && !READS_ONLY.has(name) && name !== 'jmp';
    if (writes) path.memoryWrites++;
    if (!writes || !WRITES_ONLY.has(name)) path.memoryReads++;
  }

  private isTaken(name: string, { zero, carry }: Walk): boolean | undefined {
    switch (name) {
      case 'je':
      case 'jz':
        return zero;
      case 'jne':
      case 'jnz':
        return zero === undefined ? undefined : !zero;
      case 'jc':
      case 'jb':
        return carry;
      case 'jnc':
      case 'jae':
        return carry === undefined ? undefined : !carry;
      default:
        throw new Error(`the outcome of ${name} is not modelled`);
    }
  }

  private value(walk: Walk, operand: Operand): Known {
    if (typeof operand === 'number') return operand | 0;
    if (isRegister(operand)) {
      const known = walk.registers.get(operand.number);
      return typeof known === 'number' && operand.bits === 8 ? known & 0xff : known;
    }
    if (isMemory(operand) && operand.symbol === 'apic') return 'apic';
    if (isMemory(operand) && operand.symbol !== undefined) return SETTLED[operand.symbol];
    return undefined;
  }

  private execute(walk: Walk, { name, operands, text }: Line): void {
    const [destination, source] = operands;
    const left = destination === undefined ? undefined : this.value(walk, destination);
    const right = source === undefined ? undefined : this.value(walk, source);
    const set = (value: Known): void => {
      if (!isRegister(destination)) return;
      if (destination.bits === 8 && typeof value === 'number') {
        const whole = walk.registers.get(destination.number);
        walk.registers.set(destination.number, typeof whole === 'number' ? (whole & ~0xff) | (value & 0xff) : undefined);
      } else walk.registers.set(destination.number, destination.bits === 8 ? undefined : value);
    };
    const both = typeof left === 'number' && typeof right === 'number' ? ([left, right] as const) : undefined;
    const flags = (result: number | undefined, carry: boolean | undefined = false): void => {
      walk.zero = result === undefined ? undefined : result === 0;
      walk.carry = carry;
    };
    const logic = (result: number | undefined, keep = true): void => {
      if (keep) set(result);
      flags(result);
    };
    switch (name) {
      case 'mov':
        return set(right);
      case 'lea': {
        const { base, displacement } = source as Memory;
        const known = base && walk.registers.get(base.number);
        return set(typeof known === 'number' ? (known + displacement) | 0 : undefined);
      }
      case 'xor':
        return logic(operands[0] === operands[1] ? 0 : both && both[0] ^ both[1]);
      case 'and':
        return logic(both && both[0] & both[1]);
      case 'or':
        return logic(both && both[0] | both[1]);
      case 'test': {
        const same = operands[0] === operands[1] ? left : both && both[0] & both[1];
        return logic(typeof same === 'number' ? same : undefined, false);
      }
      case 'cmp':
        return flags(both && both[0] - both[1], both && both[0] >>> 0 < both[1] >>> 0);
      case 'shr':
        return logic(both && both[0] >>> both[1]);
      case 'sete':
        return set(walk.zero === undefined ? undefined : Number(walk.zero));
      case 'btr':
        walk.flagsOf = 'the bit';
        walk.carry = undefined;
        return;
      case 'sbb':
        if (operands[0] !== operands[1]) throw new Error(`${text} is not modelled`);
        set(walk.carry === undefined ? undefined : -Number(walk.carry));
        walk.zero = walk.carry === undefined ? undefined : !walk.carry;
        return;
      case 'inc':
      case 'wrmsr':
      case 'xchg':
        return;
      default:
        throw new Error(`${text} is not modelled`);
    }
  }
}
