/** Output on the first serial port, polled; powering off. */

import type { Assembler } from '../assembler/assembler.ts';
import { address, al, ax, byte, dx, eax, ecx, edx, type GeneralRegister, type Memory } from '../assembler/operands.ts';
import type { GuestAbi, GuestFunctions } from '../apic/guest-abi.ts';

export const COM1 = 0x3f8;
export const COM1_PIN = 4;
/** Registers, from the first port. */
export const Uart = { data: 0, interruptEnable: 1, interruptId: 2, lineControl: 3, modemControl: 4, lineStatus: 5 } as const;
export const TRANSMITTER_EMPTY = 1 << 5;
const PM1_CONTROL_PORT = 0x604;
/** SLP_EN with the type of S5. */
const POWER_OFF = 0x2000;

/** A text in the kernel's data, by symbol. */
export type Texts = Map<string, string>;

/** What a line is made of: text, or a number in a register or memory that calls do not disturb. */
export type Printed = string | GeneralRegister | Memory;

/** Emits the printing of a line, newline included. Caller-saved registers are lost. */
export function printLine(a: Assembler, abi: GuestAbi, texts: Texts, parts: readonly Printed[]): void {
  const put = (text: string): void => {
    let symbol = [...texts].find(([, known]) => known === text)?.[0];
    if (symbol === undefined) {
      symbol = `text_${texts.size}`;
      texts.set(symbol, text);
    }
    a.mov(abi.arguments32[0], address(symbol));
    a.call('print_text');
  };
  const [first] = abi.arguments32;
  const ends = typeof parts.at(-1) === 'string';
  for (const [i, part] of parts.entries()) {
    if (typeof part === 'string') put(ends && i === parts.length - 1 ? `${part}\n` : part);
    else {
      if (part.kind === 'memory' && part.bits === 8) a.movzx(first, part);
      else a.mov(first, part);
      a.call('print_number');
    }
  }
  if (!ends) put('\n');
}

export const consoleFunctions: GuestFunctions = {
  /** (character) */
  print_character(a, abi) {
    a.mov(ecx, abi.arguments32[0]);
    a.mov(edx, COM1 + Uart.lineStatus);
    a.label('.wait');
    a.in(al, dx);
    a.test(al, TRANSMITTER_EMPTY);
    a.jz('.wait');
    a.mov(eax, ecx);
    a.mov(edx, COM1);
    a.out(dx, al);
    a.ret();
  },
  /** (text, ended by 0) */
  print_text(a, abi) {
    const [at] = abi.saved;
    a.push(at);
    a.mov(abi.saved32[0], abi.arguments32[0]);
    a.label('.next');
    a.movzx(abi.arguments32[0], byte(at));
    a.test(abi.arguments32[0], abi.arguments32[0]);
    a.jz('.done');
    a.call('print_character');
    a.inc(at);
    a.jmp('.next');
    a.label('.done');
    a.pop(at);
    a.ret();
  },
  /** (number): unsigned, decimal. Digits come out backwards, so they wait on the stack. */
  print_number(a, abi) {
    const [digits] = abi.saved;
    const [count, base] = abi.saved32;
    a.push(digits);
    a.push(abi.saved[1]);
    a.xor(count, count);
    a.mov(base, 10);
    a.mov(eax, abi.arguments32[0]);
    a.label('.digit');
    a.xor(edx, edx);
    a.div(base);
    a.add(edx, 0x30);
    a.push(abi.bits === 64 ? abi.arguments[2] : edx);
    a.inc(count);
    a.test(eax, eax);
    a.jnz('.digit');
    a.label('.print');
    a.pop(abi.arguments[0]);
    a.call('print_character');
    a.dec(count);
    a.jnz('.print');
    a.pop(abi.saved[1]);
    a.pop(digits);
    a.ret();
  },
  power_off(a) {
    a.mov(edx, PM1_CONTROL_PORT);
    a.mov(eax, POWER_OFF);
    a.out(dx, ax);
    a.label('.off');
    a.cli();
    a.hlt();
    a.jmp('.off');
  },
};
