/**
 * Random user-mode code of some dozens of instructions, run by this processor, by the interpreter and as compiled code; all registers and
 * memory are compared. What vectors of one instruction do not see: what one instruction leaves to the next, flags that nobody reads,
 * blocks and regions.
 *
 * The code goes forward only. Behind what leaves flags undefined stands a comparison, in front of what accesses memory the address is
 * loaded into its registers; it ends in INT3, or in the first fault. Left out is what forms.ts leaves out, what the manuals leave
 * undefined or approximate, and what would unmask exceptions.
 */

import * as state from '../../src/cpu/state.ts';
import { Activity, FAULT, type Vcpu, Vector as ExceptionVector } from '../../src/cpu/vcpu.ts';
import { Decoder, NO_BASE, RIP_BASE } from '../../src/isa/decoder.ts';
import { EngineTarget, IMAGE, surroundings } from '../conformance/engine-target.ts';
import { baselineMemory, CODE, CODE_START, DATA, FIXED, HIGH, MEMORY_WORD, PROFILES, type Profile, Random, seedRegisters, STACK, Word } from '../conformance/machine-state.ts';
import { compareOutcome } from '../conformance/replay.ts';
import { mnemonicOf, UNDEFINED } from '../conformance/undefined-flags.ts';
import type { MachineState, Outcome, Recording, Vector } from '../conformance/vector-file.ts';
import { disassemble } from './disassemble.ts';
import { encode } from './encode.ts';
import { FAMILIES, type Form } from './forms.ts';
import { type Machine, type NativeCase, runBatches } from './native.ts';

const FAMILIES_USED = new Set(['alu', 'shift', 'move', 'stack', 'string', 'sse-float', 'sse-move', 'sse-integer', 'mmx', 'bit-manipulation', 'cryptography', 'x87']);
/**
 * Results that are undefined or approximate; memory images with pointers to the code; what unmasks exceptions or traps; bit strings, whose
 * addresses go anywhere; what moves the stack there.
 */
const LEFT_OUT = new Set([
  'BSWAP', 'SHLD', 'SHRD', 'RCPPS', 'RCPSS', 'RSQRTPS', 'RSQRTSS', 'F2XM1', 'FYL2X', 'FYL2XP1', 'FPTAN', 'FPATAN', 'FSIN', 'FCOS', 'FSINCOS',
  'FNSAVE', 'FRSTOR', 'FNSTENV', 'FLDENV', 'FXSAVE', 'FXRSTOR', 'FLDCW', 'LDMXCSR', 'POPF', 'ENTER', 'LEAVE',
]); // biome-ignore format: a list
const BIT_STRING = /^(LOCK )?BT[SRC]? Ev,Gv.*mem/;
const STRING = /^((A32|REP|REPE|REPNE) )*(MOVS|STOS|LODS|CMPS|SCAS|MASKMOVQ|MASKMOVDQU)\b/;
const [RCX, RBX, RSP, RSI, RDI] = [1, 3, 4, 6, 7];
const [LEAST_INSTRUCTIONS, MORE_INSTRUCTIONS] = [6, 40];
const MOST_CODE_BYTES = 1500;
const BUDGET = 20_000;
const INT3 = 0xcc;
/** Ends the code on the engine, where INT3 would need a handler. */
const VMMCALL = [0x0f, 0x01, 0xd9];
/** From here on Linux hides from a process whether a page is mapped. */
const HIDDEN_FROM = 0x7fff_ffff_f000n;

function usableForms({ features, vendor }: Machine): Form[] {
  const families = FAMILIES.filter((family) => FAMILIES_USED.has(family.name) && (family.features ?? []).every((name) => features.has(name)) && (!family.vendor || family.vendor === vendor));
  return families.flatMap(({ forms }) => forms.filter(({ id, illegal, mnemonic }) => !illegal && !LEFT_OUT.has(mnemonic) && !BIT_STRING.test(id)));
}

class StreamSource {
  private readonly decoder = new Decoder();
  private readonly forms: readonly Form[];
  private code: number[] = [];

  constructor(forms: readonly Form[]) {
    this.forms = forms;
  }

  /** The code of a stream, without what ends it. */
  draw(random: Random): Uint8Array {
    this.code = [];
    for (let i = LEAST_INSTRUCTIONS + random.below(MORE_INSTRUCTIONS); i > 0 && this.code.length < MOST_CODE_BYTES; i--) {
      const at = this.code.length;
      if (!random.chance(12)) {
        this.instruction(random);
        continue;
      }
      // Perhaps over the next one.
      this.code.push(0x70 | random.below(16), 0);
      this.instruction(random);
      this.code[at + 1] = this.code.length - at - 2;
    }
    return Uint8Array.from(this.code);
  }

  private instruction(random: Random): void {
    for (;;) {
      const form = random.pick(this.forms);
      const bytes = encode(form, random);
      const status = this.decoder.decode(Uint8Array.from([...bytes, ...new Array<number>(16).fill(0)]), 0, 16, 64);
      if (status !== 'ok' || this.decoder.result.length !== bytes.length || !this.prepare(random, form)) continue;
      this.code.push(...bytes);
      const defined = UNDEFINED[mnemonicOf(form.id)] === undefined;
      if (!defined) this.code.push(0x48, 0x83, 0xf8, random.below(256)); // CMP RAX, imm8
      return;
    }
  }

  /** Loads the registers that the instruction just decoded addresses memory with. False where it is better left out. */
  private prepare(random: Random, form: Form): boolean {
    const d = this.decoder.result;
    const rarely = random.chance(3);
    if (!rarely && (form.mnemonic === 'DIV' || form.mnemonic === 'IDIV')) return false;
    // Without its stack a stream ends soon.
    if (!rarely && this.namesStack(form)) return false;
    if (form.prefixes.some((prefix) => prefix === 0xf2 || prefix === 0xf3)) this.load(RCX, BigInt(random.below(12)));
    if (STRING.test(form.id)) {
      if (d.segment >= 4) return false;
      for (const register of [RSI, RDI]) this.load(register, BigInt(DATA.address + 0x400 + random.below(0x1800)));
      return true;
    }
    if (form.mnemonic === 'XLAT') {
      this.load(RBX, this.target(random, d.addressBits));
      return d.segment < 4;
    }
    if (form.kind !== 'mem') return d.form.encoding.operands.every(({ code }) => code !== 'O');
    if (form.mnemonic === 'LEA') return true;
    if (d.base === NO_BASE || d.base === RIP_BASE || d.base === RSP || d.segment >= 4 || d.index === d.base) return false;
    // The address is loaded last, over whatever else goes into the register.
    if (d.index !== NO_BASE) this.load(d.index, BigInt(random.below(8)));
    this.load(d.base, this.target(random, d.addressBits) - BigInt(d.displacement));
    return true;
  }

  /** RSP is one of its operands; or an XMM register of that number, which is none too many to leave out. */
  private namesStack({ encoding }: Form): boolean {
    const { reg, rm, mod, opcodeRegister } = this.decoder.result;
    if (encoding.hasModrm) return reg === RSP || (mod === 3 && rm === RSP);
    return opcodeRegister === RSP && encoding.operands.some(({ code }) => code === 'Z');
  }

  private target(random: Random, addressBits: number): bigint {
    const unaligned = random.chance(5) ? random.below(16) : 0;
    const window = random.chance(1) ? FIXED : random.chance(8) && addressBits === 64 ? HIGH : random.chance(10) ? STACK : DATA;
    const offset = window === DATA && random.chance(8) ? 0xff0 : 0x100 + 16 * random.below((window.size - 0x200) / 16);
    return random.below(300) === 0 ? BigInt(random.next()) : BigInt(window.address + offset + unaligned);
  }

  private load(register: number, value: bigint): void {
    this.code.push(0x48 | (register >> 3), 0xb8 | (register & 7));
    for (let i = 0n; i < 64n; i += 8n) this.code.push(Number((BigInt.asUintN(64, value) >> i) & 0xffn));
  }
}

/** Runs a stream up to VMMCALL or to its first fault. */
class StreamTarget extends EngineTarget {
  constructor(compiled: boolean) {
    const stopped = { vector: -1, errorCode: 0 };
    const environment = surroundings({
      hypercall: (vcpu: Vcpu) => {
        vcpu.activity = Activity.halted;
        vcpu.mmu.requestExit(vcpu.base);
      },
      intercepted: (_vcpu, what, vector) => {
        if (what !== 'exception') return;
        stopped.vector = vector;
        stopped.errorCode = Math.max(0, FAULT.code);
        throw stopped;
      },
    });
    super(compiled ? 'force' : false, undefined, environment);
    this.stopped = stopped;
  }

  private readonly stopped: { vector: number; errorCode: number };

  /** `end` is where the code ends, as an address. */
  runStream(input: MachineState, end: number): Outcome {
    const { vcpu, stopped, outcome } = this;
    this.load(input);
    this.memory.write(IMAGE + CODE.offset + end - CODE.address, Uint8Array.from(VMMCALL));
    vcpu.activity = Activity.running;
    outcome.fault = undefined;
    try {
      this.engine.run(vcpu, BUDGET);
      if (vcpu.activity !== Activity.halted) throw new Error(`the stream does not end: RIP is ${vcpu.rip.toString(16)}`);
      vcpu.rip -= BigInt(VMMCALL.length);
    } catch (error) {
      if (error !== stopped) throw error;
      outcome.fault = { vector: stopped.vector, errorCode: stopped.errorCode, address: stopped.vector === ExceptionVector.pageFault ? vcpu.get64(state.CR2) : 0n };
    }
    this.save();
    outcome.memory.set(input.memory.subarray(CODE.offset, CODE.offset + CODE.size), CODE.offset);
    return outcome;
  }
}

interface Stream {
  index: number;
  profile: Profile;
  code: Uint8Array;
  input: MachineState;
}

function drawStream(source: StreamSource, seed: number, index: number): Stream {
  const random = new Random(Math.imul(seed, 0x9e37_79b1) ^ Math.imul(index, 0x85eb_ca6b));
  const code = source.draw(random);
  const profile = random.pick(PROFILES);
  const registers = new BigUint64Array(Word.count);
  seedRegisters(random.next(), profile, registers);
  registers[Word.rip] = BigInt(CODE.address + CODE_START);
  const memory = baselineMemory();
  memory.set(code, CODE.offset + CODE_START);
  memory[CODE.offset + CODE_START + code.length] = INT3;
  return { index, profile, code, input: { registers, memory } };
}

const BASELINE = baselineMemory();

/** What the harness takes: code of 16 bytes at most, the rest of it as words of memory. */
function nativeCase({ index, code, input }: Stream): NativeCase {
  const view = new DataView(input.memory.buffer);
  const baseline = new DataView(BASELINE.buffer);
  const memory = [];
  for (let at = CODE.offset + CODE_START; at <= CODE.offset + CODE_START + code.length; at += 8) {
    if (view.getBigUint64(at, true) !== baseline.getBigUint64(at, true)) memory.push({ word: MEMORY_WORD + at / 8, value: view.getBigUint64(at, true) });
  }
  return { form: `stream ${index}`, code: new Uint8Array(0), codeOffset: CODE_START, step: false, registers: input.registers, memory };
}

/** The stream as a vector, with what the processor made of it. */
function vectorOf({ index, profile, code, input }: Stream, recording: Recording): Vector {
  const memory = input.memory.slice();
  const view = new DataView(memory.buffer);
  for (const { word, value } of recording.memory) view.setBigUint64(8 * (word - MEMORY_WORD), value, true);
  return {
    form: 'stream', index, profile, code, codeAddress: CODE.address + CODE_START, step: false, input, memoryOverrides: [],
    expected: { fault: recording.fault, registers: recording.registers, memory },
  };
}

function listing(code: Uint8Array): string[] {
  const lines = [];
  for (let at = 0; at < code.length; ) {
    const address = CODE.address + CODE_START + at;
    const { text, length } = disassemble(code.subarray(at), address);
    lines.push(`${address.toString(16)} ${Buffer.from(code.subarray(at, at + length)).toString('hex').padEnd(24)} ${text}`);
    at += length;
  }
  return lines;
}

export interface StreamComparison {
  streams: number;
  faults: number;
  /** Page faults that Linux tells nothing about. */
  leftOut: number;
  /** Each outcome that differs, in lines. */
  different: string[][];
}

/** Draws streams, the `from`th of a seed first, runs them on this processor and both ways on the engine, and compares. */
export function compareStreams(harness: string, machine: Machine, { seed, from, count }: { seed: number; from: number; count: number }): StreamComparison {
  const source = new StreamSource(usableForms(machine));
  const targets = [['interpreted', new StreamTarget(false)], ['compiled', new StreamTarget(true)]] as const;
  const streams: Stream[] = [];
  function* cases(): Generator<NativeCase> {
    for (let index = from; index < from + count; index++) {
      const stream = drawStream(source, seed, index);
      streams.push(stream);
      yield nativeCase(stream);
    }
  }
  const result: StreamComparison = { streams: count, faults: 0, leftOut: 0, different: [] };
  runBatches(harness, cases(), (recording) => {
    const stream = streams.shift() as Stream;
    const vector = vectorOf(stream, recording);
    if (recording.fault) result.faults++;
    if (recording.fault?.vector === ExceptionVector.pageFault && recording.fault.address >= HIDDEN_FROM) {
      result.leftOut++;
      return;
    }
    for (const [how, target] of targets) {
      const differences = compareOutcome(vector, target.runStream(stream.input, CODE.address + CODE_START + stream.code.length));
      if (!differences.length) continue;
      result.different.push([
        `seed ${seed}, stream ${stream.index}, ${how}, up to ${recording.registers[Word.rip].toString(16)}:`,
        ...listing(stream.code).map((line) => `    ${line}`),
        ...differences.map(({ what, expected, actual }) => `  ${what}: ${expected} expected, ${actual}`),
      ]);
    }
  });
  return result;
}
