/** Comparing texts of firmware tables in guest code: an inlined strncmp with constants. */

import type { Assembler } from '../assembler/assembler.ts';
import { byte, dword, type GeneralRegister, word } from '../assembler/operands.ts';

/** Goes to `differs` where the bytes at the register are not the text's. Flags are lost. */
export function compareText(a: Assembler, at: GeneralRegister, text: string, differs: string): void {
  const bytes = new TextEncoder().encode(text);
  const view = new DataView(bytes.buffer);
  for (let offset = 0; offset < bytes.length; ) {
    const left = bytes.length - offset;
    if (left >= 4) a.cmp(dword(at, offset), view.getUint32(offset, true));
    else if (left >= 2) a.cmp(word(at, offset), view.getUint16(offset, true));
    else a.cmp(byte(at, offset), bytes[offset]);
    a.jne(differs);
    offset += left >= 4 ? 4 : left >= 2 ? 2 : 1;
  }
}
