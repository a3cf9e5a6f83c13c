/** Interrupts: 256 stubs, one way in, handlers by vector. */

import { type Assembler, assembler, type ObjectCode } from '../assembler/assembler.ts';
import {
  address,
  al,
  byte,
  dword,
  eax,
  ecx,
  edx,
  esp,
  type GeneralRegister,
  mem,
  type Memory,
  qword,
  r8,
  r9,
  r10,
  r11,
  rax,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  times,
  word,
} from '../assembler/operands.ts';
import { acknowledgeSymbol, type EoiState } from '../apic/driver-code.ts';
import type { GuestAbi, GuestBits, GuestFunctions } from '../apic/guest-abi.ts';
import { callMethod } from '../apic/native-access.ts';
import { printLine, type Texts } from './console.ts';
import { Selector, Vector } from './layout.ts';

const VECTORS = 256;
const STUB_BYTES = 16;
const INTERRUPT_GATE = 0x8e00;
const PIC_DATA_PORTS = [0x21, 0xa1];
const NESTED_LOG_BYTES = 8;

/** What of an interrupted program is lost in a call. */
const VOLATILE: Record<GuestBits, readonly GeneralRegister[]> = {
  64: [rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11],
  32: [eax, ecx, edx],
};

/** Exceptions for which the processor pushes an error code; the others' stubs push 0, so that all frames are alike. */
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);

/**
 * For a handler: where the interrupted instruction's address is, from its own stack pointer. Vector and error code lie in front
 * of it.
 */
export const returnAddressOffset = ({ bits, word }: GuestAbi): number => (1 + VOLATILE[bits].length + 2) * word;

/** The stubs, each of a fixed size: push error code and vector, go on. */
export function vectorStubs(bits: GuestBits): ObjectCode {
  const a = assembler(bits).align(STUB_BYTES).label('vector_stubs');
  for (let vector = 0; vector < VECTORS; vector++) {
    if (!WITH_ERROR_CODE.has(vector)) a.push(0);
    a.push(vector).jmp('interrupt_entry').align(STUB_BYTES);
  }
  return a.assemble();
}

/** Handlers that are not `unexpected_interrupt`. */
export const HANDLERS: Readonly<Record<number, string>> = {
  [Vector.nmi]: 'handle_nmi',
  [Vector.serial]: 'handle_serial',
  [Vector.withNmi]: 'handle_with_nmi',
  [Vector.timer]: 'handle_and_acknowledge',
  [Vector.reschedule]: 'handle_and_acknowledge',
  [Vector.message]: 'handle_message',
  [Vector.spurious]: 'handle_spurious',
  ...Object.fromEntries(Vector.nested.map((vector) => [vector, `handle_nested_${vector}`])),
};

export function interruptFunctions(state: EoiState, texts: Texts): GuestFunctions {
  const acknowledge = acknowledgeSymbol(state);
  const log = (a: Assembler, abi: GuestAbi, value: number): void => {
    a.mov(eax, dword('nested_logged'));
    a.cmp(eax, NESTED_LOG_BYTES);
    a.jae(`.full${value}`);
    a.mov(byte(abi.result, address('nested_log')), value);
    a.inc(dword('nested_logged'));
    a.label(`.full${value}`);
  };
  const selfIpi = (a: Assembler, abi: GuestAbi, vector: number): void => {
    a.mov(abi.arguments32[0], vector);
    callMethod(a, abi, 'sendIpiSelf');
  };
  /** A handler that lets others in, and asks for some: entry is logged as the vector, exit as the vector plus 1. */
  const nested =
    (vector: number, asks: readonly number[]): GuestFunctions[string] =>
    (a, abi) => {
      log(a, abi, vector);
      if (asks.length) {
        a.sti();
        for (const other of asks) selfIpi(a, abi, other);
        a.cli();
      }
      log(a, abi, vector + 1);
      a.jmp(acknowledge);
    };
  const [outer, lower, middle, inner] = Vector.nested;

  return {
    /** Counts, calls the vector's handler, returns to what was interrupted. */
    interrupt_entry(a, abi) {
      const saved = VOLATILE[abi.bits];
      const stack = abi.bits === 64 ? rsp : esp;
      const [first] = abi.arguments;
      for (const register of saved) a.push(register);
      a.cld();
      a.mov(abi.arguments32[0], dword(stack, saved.length * abi.word));
      a.inc(abi.bits === 64 ? perCpuIndexed(abi, rdi) : perCpuIndexed(abi, eax));
      a.call(abi.pointer(times(first, abi.word), address('handlers')));
      for (const register of [...saved].reverse()) a.pop(register);
      a.add(stack, 2 * abi.word);
      if (abi.bits === 64) a.iretq();
      else a.iretd();
    },
    handle_and_acknowledge(a) {
      a.jmp(acknowledge);
    },
    /** The spurious vector has no bit in the ISR, so that an EOI would end another interrupt. */
    handle_spurious(a) {
      a.ret();
    },
    handle_nmi(a) {
      a.ret();
    },
    /** The NMI comes before the EOI. */
    handle_with_nmi(a, abi) {
      a.mov(eax, abi.perCpu('cpu_number', 32));
      a.lea(abi.arguments[0], mem(times(abi.result, abi.word), address('cpu_bit_masks')));
      a.mov(abi.arguments32[1], Vector.nmi);
      callMethod(a, abi, 'sendIpiMask');
      a.jmp(acknowledge);
    },
    [`handle_nested_${outer}`]: nested(outer, [middle]),
    [`handle_nested_${middle}`]: nested(middle, [inner, lower]),
    [`handle_nested_${inner}`]: nested(inner, []),
    [`handle_nested_${lower}`]: nested(lower, []),
    /** (vector). Exceptions too: says what and where, and gives up. */
    unexpected_interrupt(a, abi) {
      const [vector] = abi.saved32;
      const stack = abi.bits === 64 ? rsp : esp;
      a.mov(vector, abi.arguments32[0]);
      a.mov(abi.saved32[1], dword(stack, returnAddressOffset(abi) - abi.word));
      a.mov(abi.saved32[2], dword(stack, returnAddressOffset(abi)));
      printLine(a, abi, texts, [
        '@@ unexpected vector=',
        vector,
        ' cpu=',
        abi.perCpu('cpu_number', 32),
        ' error=',
        abi.saved32[1],
        ' ip=',
        abi.saved32[2],
      ]);
      a.call('power_off');
      a.ret();
    },

    /** Gates for all vectors; the 8259s are silenced. */
    setup_interrupts(a, abi) {
      const gate = (offset: number, bits: 16 | 32): Memory => {
        const parts = [abi.result, address('idt', offset)] as const;
        return bits === 16 ? word(...parts) : dword(...parts);
      };
      const gateBytes = abi.bits === 64 ? 16 : 8;
      a.mov(edx, address('vector_stubs'));
      a.xor(eax, eax);
      a.label('.gate');
      a.mov(gate(0, 32), edx).note('its low half is the offset');
      a.mov(gate(2, 16), abi.bits === 64 ? Selector.code64 : Selector.code32);
      a.mov(gate(4, 32), edx);
      a.mov(gate(4, 16), INTERRUPT_GATE);
      if (abi.bits === 64) a.mov(qword(rax, address('idt', 8)), 0);
      a.add(edx, STUB_BYTES);
      a.add(eax, gateBytes);
      a.cmp(eax, gateBytes * VECTORS);
      a.jb('.gate');
      a.mov(al, 0xff);
      for (const port of PIC_DATA_PORTS) a.out(port, al);
      a.ret();
    },
  };
}

/** A per-CPU counter of the vector in a register. */
const perCpuIndexed = (abi: GuestAbi, vector: GeneralRegister): Memory => {
  const { segment } = abi.perCpu('handled', 32);
  return dword(segment as NonNullable<Memory['segment']>, times(vector, 4), address('handled'));
};
