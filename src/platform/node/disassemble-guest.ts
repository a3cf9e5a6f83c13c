/** Guest code as a listing, by iced-x86, which is loaded when it is first needed. */

import { createRequire } from 'node:module';

export interface GuestInstruction {
  address: bigint;
  bytes: Uint8Array;
  /** Intel's syntax, as NASM has it. */
  text: string;
}

/** The instructions of `bytes`, which lie at `address`; what does not decode is `(bad)` and a byte long. */
export function disassembleGuest(bytes: Uint8Array, address: bigint, bits: 16 | 32 | 64): GuestInstruction[] {
  const { Decoder, DecoderOptions, Formatter, FormatterSyntax, Instruction } = createRequire(import.meta.url)(
    'iced-x86',
  ) as typeof import('iced-x86');
  const decoder = new Decoder(bits, bytes, DecoderOptions.None);
  const formatter = new Formatter(FormatterSyntax.Nasm);
  formatter.hexPrefix = '0x';
  formatter.hexSuffix = '';
  decoder.ip = address;
  const instruction = new Instruction();
  const found: GuestInstruction[] = [];
  while (decoder.canDecode) {
    const start = decoder.position;
    decoder.decodeOut(instruction);
    found.push({
      address: address + BigInt(start),
      bytes: bytes.slice(start, decoder.position),
      text: formatter.format(instruction),
    });
  }
  for (const wasm of [decoder, formatter, instruction]) wasm.free();
  return found;
}
