/**
 * The serial port's interrupt, as each kind of machine wires it: by a pin of the I/O APIC, through the 8259s and Cobalt's interrupt
 * chip, or through the 8259s alone where there is no APIC. Each way has a `route_serial` (trigger mode), which sends it to the CPU that
 * asks (or where the driver wants it), and a `handle_serial`.
 */

import type { Assembler } from '../assembler/assembler.ts';
import { address, al, dword, dx, eax, edx, type GeneralRegister, mem, times } from '../assembler/operands.ts';
import { structureOffset } from '../apic/apic-driver.ts';
import type { GuestFunctions } from '../apic/guest-abi.ts';
import { callMethod } from '../apic/native-access.ts';
import { COBALT_8259_ENTRY, COBALT_APIC_ENABLE, COBALT_APIC_ID, COBALT_ENTRY_SHIFT } from '../../interrupts/cobalt-apic.ts';
import { REDIRECTION_LEVEL } from '../../interrupts/io-apic.ts';
import { ELCR_PORT, PIC_MASTER_PORT, PIC_SLAVE_PORT } from '../../interrupts/pic.ts';
import { COM1, COM1_PIN, Uart } from './console.ts';
import { Vector } from './layout.ts';

export type SerialWiring = 'io-apic' | 'cobalt' | '8259';

const IO_APIC_SELECT = 0x00;
const IO_APIC_WINDOW = 0x10;
const REDIRECTION_TABLE = 0x10;

/** 8259: initialisation words, OCW2's specific EOI, OCW3's poll, and what a poll answers where there was a request. */
const ICW1 = 0x11;
const ICW3 = [0x04, 0x02];
const ICW4 = 0x01;
const SPECIFIC_EOI = 0x60;
const POLL = 0x0c;
const POLL_REQUEST = 0x80;
export const TIMER_IRQ = 0;

const out = (a: Assembler, port: number, value: number): void => {
  a.mov(al, value);
  a.out(port, al);
};

/** Ends the interrupt of an IRQ at the first 8259. */
export const endAt8259 = (a: Assembler, irq: number): void => out(a, PIC_MASTER_PORT, SPECIFIC_EOI | irq);
/** Lets the IRQ through the first 8259, or none. */
export const unmask8259 = (a: Assembler, irq?: number): void => out(a, PIC_MASTER_PORT + 1, irq === undefined ? 0xff : 0xff & ~(1 << irq));

/** Reading the cause takes the line down; left alone as often as it was asked to be, a level-triggered line strikes again. */
function service(a: Assembler): void {
  a.inc(dword('serial_handled'));
  a.cmp(dword('serial_leave_alone'), 0);
  a.je('.service');
  a.dec(dword('serial_leave_alone'));
  a.jmp('.serviced');
  a.label('.service');
  a.mov(edx, COM1 + Uart.interruptId);
  a.in(al, dx);
  a.label('.serviced');
}

const legacy: GuestFunctions = {
  /** Vectors from `Vector.legacy` on, everything masked. */
  init_8259(a) {
    for (const [chip, port] of [PIC_MASTER_PORT, PIC_SLAVE_PORT].entries()) {
      out(a, port, ICW1);
      for (const value of [Vector.legacy + 8 * chip, ICW3[chip], ICW4, 0xff]) out(a, port + 1, value);
    }
    a.ret();
  },
  /** (trigger mode bit) */
  route_serial_8259(a, abi) {
    a.push(abi.saved[0]);
    a.mov(abi.saved32[0], abi.arguments32[0]);
    a.call('init_8259');
    a.mov(eax, abi.saved32[0]);
    a.and(eax, REDIRECTION_LEVEL);
    a.shr(eax, Math.log2(REDIRECTION_LEVEL) - COM1_PIN).note("the pin's bit");
    a.mov(edx, ELCR_PORT);
    a.out(dx, al);
    unmask8259(a, COM1_PIN);
    a.pop(abi.saved[0]);
    a.ret();
  },
};

const ioApic = (acknowledge: string): GuestFunctions => ({
  /**
   * (trigger mode bit): as the driver addresses I/O interrupts. x2APIC drivers address physically: without remapping, the I/O APIC has no
   * room for their logical IDs.
   */
  route_serial(a, abi) {
    const [low, high] = abi.saved;
    const [low32, high32] = abi.saved32;
    const entry = REDIRECTION_TABLE + 2 * COM1_PIN;
    const put = (index: number, value: GeneralRegister): void => {
      a.mov(dword(address('IO_APIC_BASE', IO_APIC_SELECT)), index);
      a.mov(dword(address('IO_APIC_BASE', IO_APIC_WINDOW)), value);
    };
    a.push(low);
    a.push(high);
    a.mov(low32, abi.arguments32[0]);
    a.or(low32, Vector.serial);
    a.mov(eax, abi.perCpu('cpu_number', 32));
    a.cmp(dword('x2apic_mode'), 0);
    a.je('.driver');
    a.mov(high32, dword(times(abi.result, 4), address('x86_cpu_to_apicid')));
    a.jmp('.write');
    a.label('.driver');
    a.lea(abi.arguments[0], mem(times(abi.result, abi.word), address('cpu_bit_masks')));
    callMethod(a, abi, 'cpuMaskToApicId');
    a.mov(high32, eax);
    a.mov(abi.scratch, abi.pointer('apic'));
    for (const [member, shift] of [
      ['irqDeliveryMode', 8],
      ['irqDestMode', 11],
    ] as const) {
      a.mov(eax, dword(abi.scratch, structureOffset(member, abi.word)));
      a.shl(eax, shift);
      a.or(low32, eax);
    }
    a.label('.write');
    a.shl(high32, 24);
    put(entry + 1, high32);
    put(entry, low32);
    a.pop(high);
    a.pop(low);
    a.ret();
  },
  /** Who waits for the interrupt is woken where another CPU took it: some machines' go to whoever has the lowest priority. */
  handle_serial(a, abi) {
    service(a);
    a.mov(eax, dword('serial_waiter'));
    a.cmp(eax, abi.perCpu('cpu_number', 32));
    a.je(acknowledge);
    a.lea(abi.arguments[0], mem(times(abi.result, abi.word), address('cpu_bit_masks')));
    a.mov(abi.arguments32[1], Vector.reschedule);
    callMethod(a, abi, 'sendIpiMask');
    a.jmp(acknowledge);
  },
});

const cobaltEntry = (offset: number) => dword(address('COBALT_APIC_BASE', (COBALT_8259_ENTRY << COBALT_ENTRY_SHIFT) + offset));

const cobalt: GuestFunctions = {
  ...legacy,
  /** The 8259s are level-triggered at Cobalt, whatever the serial port is at the 8259s. */
  route_serial(a, abi) {
    a.call('route_serial_8259');
    a.mov(eax, abi.perCpu('cpu_number', 32));
    a.mov(eax, dword(times(abi.result, 4), address('x86_cpu_to_apicid')));
    a.shl(eax, 24);
    a.mov(cobaltEntry(4), eax);
    a.mov(cobaltEntry(0), REDIRECTION_LEVEL | Vector.serial);
    a.mov(dword(address('COBALT_APIC_BASE', COBALT_APIC_ID)), COBALT_APIC_ENABLE);
    a.ret();
  },
  /** Cobalt's acknowledge ends the interrupt first, masked; then the 8259 is asked who it was. */
  handle_serial(a) {
    a.mov(eax, COBALT_8259_ENTRY);
    a.call('ack_cobalt_irq');
    out(a, PIC_MASTER_PORT, POLL);
    a.in(al, PIC_MASTER_PORT);
    a.cmp(al, POLL_REQUEST | COM1_PIN);
    a.jne('.none');
    service(a);
    endAt8259(a, COM1_PIN);
    a.label('.none');
    a.mov(eax, COBALT_8259_ENTRY);
    a.jmp('enable_cobalt_irq');
  },
};

const only8259 = (acknowledge: string): GuestFunctions => ({
  ...legacy,
  route_serial(a) {
    a.jmp('route_serial_8259');
  },
  /** Ended at the 8259. There is no APIC, and its driver's EOI is nothing; every handler has it all the same. */
  handle_serial(a) {
    service(a);
    endAt8259(a, COM1_PIN);
    a.jmp(acknowledge);
  },
  handle_legacy_timer(a) {
    endAt8259(a, TIMER_IRQ);
    a.jmp(acknowledge);
  },
});

export function serialFunctions(wiring: SerialWiring, acknowledge: string): GuestFunctions {
  switch (wiring) {
    case 'io-apic':
      return ioApic(acknowledge);
    case 'cobalt':
      return cobalt;
    case '8259':
      return only8259(acknowledge);
  }
}

/** A CPU's vectors for the 8259s' interrupts. */
export const LEGACY_HANDLERS: Readonly<Record<number, string>> = {
  [Vector.legacy + TIMER_IRQ]: 'handle_legacy_timer',
  [Vector.legacy + COM1_PIN]: 'handle_serial',
  [Vector.legacy + 7]: 'handle_spurious',
};

