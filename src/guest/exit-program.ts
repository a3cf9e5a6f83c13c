/**
 * A Linux program that ends the machine's run with the status in its argument: it writes it to the debug exit's port, for which
 * it needs root's privilege. On a machine without that port it just returns. A 32-bit ELF executable, for 64-bit kernels as well.
 */

import { assembler } from './assembler/assembler.ts';
import { link } from './assembler/linker.ts';
import { al, byte, dword, eax, ebx, edx, esi, esp } from './assembler/operands.ts';

const HEADER_BYTES = 52;
const PROGRAM_HEADER_BYTES = 32;
const LOAD_ADDRESS = 0x0804_8000;
const CODE_OFFSET = HEADER_BYTES + PROGRAM_HEADER_BYTES;
const READ_EXECUTE = 5;
const ET_EXEC = 2;
const PT_LOAD = 1;
const PAGE_BYTES = 4096;

/** System calls of 32-bit programs. */
const SYS_EXIT = 1;
const SYS_IOPL = 110;
const USER_IO = 3;

const ELF_MACHINE_386 = 3;

/** Takes the digits of its first argument. With no argument or privilege it returns 1. */
function programCode(exitStatusPort: number): Uint8Array {
  const a = assembler(32).label('start');
  a.mov(esi, dword(esp, 8)); // behind the arguments' count and the program's name
  a.test(esi, esi);
  a.jz('.leave');
  a.mov(eax, SYS_IOPL);
  a.mov(ebx, USER_IO);
  a.int(0x80);
  a.test(eax, eax);
  a.jnz('.leave'); // without the privilege OUT would fault
  a.label('.digit'); // EAX is 0 at first
  a.movzx(edx, byte(esi));
  a.sub(edx, '0'.charCodeAt(0));
  a.jb('.write');
  a.imul(eax, eax, 10);
  a.add(eax, edx);
  a.inc(esi);
  a.jmp('.digit');
  a.label('.write');
  a.out(exitStatusPort, al);
  a.label('.leave');
  a.mov(ebx, 1);
  a.mov(eax, SYS_EXIT);
  a.int(0x80);
  return link([a.assemble()], { base: LOAD_ADDRESS + CODE_OFFSET }).bytes;
}

/** System V gABI 4: one segment, which is the whole file. */
export function exitProgram(exitStatusPort: number): Uint8Array {
  const code = programCode(exitStatusPort);
  const file = new Uint8Array(CODE_OFFSET + code.length);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]);
  view.setUint16(16, ET_EXEC, true);
  view.setUint16(18, ELF_MACHINE_386, true);
  view.setUint32(20, 1, true);
  view.setUint32(24, LOAD_ADDRESS + CODE_OFFSET, true);
  view.setUint32(28, HEADER_BYTES, true);
  view.setUint16(40, HEADER_BYTES, true);
  view.setUint16(42, PROGRAM_HEADER_BYTES, true);
  view.setUint16(44, 1, true);
  const segment = [PT_LOAD, 0, LOAD_ADDRESS, LOAD_ADDRESS, file.length, file.length, READ_EXECUTE, PAGE_BYTES];
  for (const [index, value] of segment.entries()) view.setUint32(HEADER_BYTES + 4 * index, value, true);
  file.set(code, CODE_OFFSET);
  return file;
}
