/** Instructions as iced-x86 sees them: their text, and what generating cases and checking forms needs to know of them. */

import { createRequire } from 'node:module';
import { FS_BASE, GS_BASE } from '../conformance/machine-state.ts';

const iced = createRequire(import.meta.url)('iced-x86') as typeof import('iced-x86');

export interface GeneralRegister {
  number: number;
  bits: number;
  /** AH, CH, DH or BH, of register `number`. */
  high: boolean;
}

export interface Disassembly {
  text: string;
  mnemonic: string;
  valid: boolean;
  length: number;
  /** May continue elsewhere than behind itself. */
  jumps: boolean;
  /** The explicit memory operand. Registers by number, -1 if absent; LEA's and NOP's count too. */
  memory: { base: number; index: number; scale: number; displacement: bigint; ripRelative: boolean } | undefined;
  /** Bytes of the memory operand, explicit or not (one element of a string instruction's). */
  memorySize: number;
  /** Base of the memory operand's segment. */
  segmentBase: bigint;
  displacementOffset: number;
  displacementSize: number;
  /** Explicit operands that are general registers. */
  registers: (GeneralRegister | undefined)[];
}

export function disassemble(code: Uint8Array, address: number): Disassembly {
  const R = iced.Register;
  const decoder = new iced.Decoder(64, code, iced.DecoderOptions.AMD);
  decoder.ip = BigInt(address);
  const instruction = decoder.decode();
  const offsets = decoder.getConstantOffsets(instruction);
  const formatter = new iced.Formatter(iced.FormatterSyntax.Nasm);
  const kinds = Array.from({ length: instruction.opCount }, (_, i) => instruction.opKind(i));
  const { memoryBase, memoryIndex, memorySegment } = instruction;
  const ripRelative = memoryBase === R.RIP || memoryBase === R.EIP;
  const number = (register: number): number => (register === R.None ? -1 : iced.RegisterExt.number(register));
  const generalRegister = (register: number): GeneralRegister | undefined => {
    if (!iced.RegisterExt.isGPR(register)) return undefined;
    const high = register >= R.AH && register <= R.BH;
    return { number: high ? register - R.AH : number(register), bits: iced.RegisterExt.size(register) * 8, high };
  };
  const result: Disassembly = {
    text: formatter.format(instruction),
    mnemonic: iced.Mnemonic[instruction.mnemonic].toUpperCase(),
    valid: !instruction.isInvalid,
    length: instruction.length,
    jumps: instruction.flowControl !== iced.FlowControl.Next && instruction.flowControl !== iced.FlowControl.Exception,
    memory: kinds.includes(iced.OpKind.Memory)
      ? {
          base: ripRelative ? -1 : number(memoryBase),
          index: number(memoryIndex),
          scale: instruction.memoryIndexScale,
          displacement: instruction.memoryDisplacementU64,
          ripRelative,
        }
      : undefined,
    memorySize: iced.MemorySizeExt.size(instruction.memorySize),
    segmentBase: memorySegment === R.FS ? FS_BASE : memorySegment === R.GS ? GS_BASE : 0n,
    displacementOffset: offsets.displacementOffset,
    displacementSize: offsets.displacementSize,
    registers: kinds.map((kind, i) => (kind === iced.OpKind.Register ? generalRegister(instruction.opRegister(i)) : undefined)),
  };
  for (const object of [formatter, offsets, instruction, decoder]) object.free();
  return result;
}
