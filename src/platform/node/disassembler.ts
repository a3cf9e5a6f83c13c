/** Machine code as text, by iced-x86: WebAssembly that its package loads the way Node does. */

import { createRequire } from 'node:module';
import type { Disassemble } from '../../experiment/eoi-report.ts';

/** Syntax of NASM, with numbers as C writes them. */
export function createDisassembler(): Disassemble {
  const iced = createRequire(import.meta.url)('iced-x86') as typeof import('iced-x86');
  const formatter = new iced.Formatter(iced.FormatterSyntax.Nasm);
  formatter.hexPrefix = '0x';
  formatter.hexSuffix = '';
  formatter.uppercaseHex = false;
  formatter.branchLeadingZeros = false;
  formatter.smallHexNumbersInDecimal = true;
  formatter.showBranchSize = false;
  formatter.spaceAfterOperandSeparator = true;
  return (code, guestVirtual, codeBits) => {
    const decoder = new iced.Decoder(codeBits, code, iced.DecoderOptions.AMD);
    decoder.ip = guestVirtual;
    const instruction = decoder.decode();
    const text = formatter.format(instruction);
    instruction.free();
    decoder.free();
    return text;
  };
}
