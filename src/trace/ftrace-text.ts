/**
 * Trace events as the kernel prints them: the text of /sys/kernel/tracing/trace, so that what reads a real host's
 * trace reads ours. Formats are those of the TP_printk lines of Linux 6.1. Not modelled: the host's own state,
 * so the latency flags are always "....." and each vCPU's thread stays on the host CPU of the same number.
 */

import { hardwareExitName } from '../kvm/exit.ts';
import type { TraceEvent, Tracer } from './tracepoints.ts';

const hex = (value: number | bigint) => value.toString(16);
const hex16 = (value: bigint) => `0x${BigInt.asUintN(64, value).toString(16).padStart(16, '0')}`;
const hex8 = (value: number) => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;

const DELIVERY_MODES = ['Fixed', 'LowPrio', 'SMI', 'Res3', 'NMI', 'INIT', 'SIPI', 'ExtINT'];
const SHORTHANDS = ['dst', 'self', 'all', 'all-but-self'];
/** Bits that the ICR, a redirection entry and MSI data have in the same places. */
const deliveryMode = (word: number) => DELIVERY_MODES[(word >> 8) & 7];
const destinationMode = (word: number) => (word & 0x800 ? 'logical' : 'physical');
const trigger = (word: number) => (word & 0x8000 ? 'level' : 'edge');

/** By xAPIC offset; of the eight registers each of ISR, TMR and IRR the kernel names the first. */
const APIC_REGISTERS: Record<number, string> = {
  32: 'ID',
  48: 'LVR',
  128: 'TASKPRI',
  144: 'ARBPRI',
  160: 'PROCPRI',
  176: 'EOI',
  192: 'RRR',
  208: 'LDR',
  224: 'DFR',
  240: 'SPIV',
  256: 'ISR',
  384: 'TMR',
  512: 'IRR',
  640: 'ESR',
  768: 'ICR',
  784: 'ICR2',
  800: 'LVTT',
  816: 'LVTTHMR',
  832: 'LVTPC',
  848: 'LVT0',
  864: 'LVT1',
  880: 'LVTERR',
  896: 'TMICT',
  912: 'TMCCT',
  992: 'TDCR',
  1008: 'SELF_IPI',
  1024: 'EFEAT',
  1040: 'ECTRL',
};
const apicRegisterName = (offset: number) => (APIC_REGISTERS[offset] ? `APIC_${APIC_REGISTERS[offset]}` : `0x${hex(offset)}`);

/** Exit reasons of struct kvm_run that this machine has. */
const USERSPACE_EXITS: Record<number, string> = {
  2: 'KVM_EXIT_IO',
  5: 'KVM_EXIT_HLT',
  6: 'KVM_EXIT_MMIO',
  8: 'KVM_EXIT_SHUTDOWN',
};
export const UserspaceExit = { io: 2, hlt: 5, mmio: 6, shutdown: 8 } as const;

/** By vector; the gaps are vectors the kernel has no name for. */
const EXCEPTIONS = 'DE DB - BP OF BR UD NM DF - TS NP SS GP PF - MF AC MC'.split(' ');
const exceptionName = (vector: number) =>
  /[A-Z]/.test(EXCEPTIONS[vector] ?? '') ? `#${EXCEPTIONS[vector]}` : `0x${hex(vector)}`;

/** The fields of an event, without its name. */
export function formatFields(event: TraceEvent): string {
  switch (event.name) {
    case 'kvm_entry':
      return `vcpu ${event.vcpu_id}, rip 0x${hex(event.rip)}`;
    case 'kvm_exit': {
      const reason = hardwareExitName(event.isa, event.exit_reason) ?? `0x${hex(event.exit_reason)}`;
      return (
        `vcpu ${event.vcpu_id} reason ${reason} rip 0x${hex(event.guest_rip)} info1 ${hex16(event.info1)} ` +
        `info2 ${hex16(event.info2)} intr_info ${hex8(event.intr_info)} error_code ${hex8(event.error_code)}`
      );
    }
    case 'kvm_userspace_exit':
      return `reason ${USERSPACE_EXITS[event.reason] ?? `0x${hex(event.reason)}`} (${event.reason})`;
    case 'kvm_inj_virq':
      return `${event.soft ? 'Soft/INTn' : 'IRQ'} 0x${hex(event.vec)}${event.reinjected ? ' [reinjected]' : ''}`;
    case 'kvm_inj_exception': {
      const error = event.has_error ? ` (0x${hex(event.error_code)})` : '';
      return `${exceptionName(event.exception)}${error}${event.reinjected ? ' [reinjected]' : ''}`;
    }
    case 'kvm_apic_ipi': {
      const icr = event.icr_low;
      const kind = `${deliveryMode(icr)}|${destinationMode(icr)}|${icr & 0x4000 ? 'assert' : 'de-assert'}|${trigger(icr)}`;
      return `dst ${hex(event.dest_id >>> 0)} vec ${icr & 0xff} (${kind}|${SHORTHANDS[(icr >> 18) & 3]})`;
    }
    case 'kvm_apic_accept_irq':
      return `apicid ${hex(event.apicid)} vec ${event.vec} (${DELIVERY_MODES[event.dm]}|${event.tm ? 'level' : 'edge'})`;
    case 'kvm_apic':
      return `apic_${event.rw} ${apicRegisterName(event.reg)} = 0x${hex(event.val)}`;
    case 'kvm_eoi':
    case 'kvm_pv_eoi':
      return `apicid ${hex(event.apicid)} vector ${event.vector}`;
    case 'kvm_msr': {
      const fault = event.exception ? ' (#GP)' : '';
      return `msr_${event.write ? 'write' : 'read'} ${hex(event.ecx >>> 0)} = 0x${hex(event.data)}${fault}`;
    }
    case 'kvm_cr':
      return `cr_${event.rw} ${hex(event.cr)} = 0x${hex(event.val)}`;
    case 'kvm_pio': {
      const { rw, port, size, count, val } = event;
      return `pio_${rw} at 0x${hex(port)} size ${size} count ${count} val 0x${hex(val >>> 0)} ${count > 1 ? '(...)' : ''}`;
    }
    case 'kvm_mmio':
      return `mmio ${event.type} len ${event.len} gpa 0x${hex(event.gpa)} val 0x${hex(event.val)}`;
    case 'kvm_cpuid':
      return (
        `func ${hex(event.function >>> 0)} idx ${hex(event.index >>> 0)} rax ${hex(event.rax)} rbx ${hex(event.rbx)} ` +
        `rcx ${hex(event.rcx)} rdx ${hex(event.rdx)}, cpuid entry ${event.found ? 'found' : 'not found'}`
      );
    case 'kvm_hypercall':
      return `nr 0x${hex(event.nr)} a0 0x${hex(event.a0)} a1 0x${hex(event.a1)} a2 0x${hex(event.a2)} a3 0x${hex(event.a3)}`;
    case 'kvm_msi_set_irq': {
      const { address, data } = event;
      const destination = ((address >> 12n) & 0xffn) | ((address >> 32n) & 0xffff_ff00n);
      const mode = address & 4n ? 'logical' : 'physical';
      const hint = address & 8n ? '|rh' : '';
      return `dst ${hex(destination)} vec ${data & 0xff} (${deliveryMode(data)}|${mode}|${trigger(data)}${hint})`;
    }
    case 'kvm_ioapic_set_irq': {
      const low = Number(event.e & 0xffff_ffffn);
      const kind = `${deliveryMode(low)}|${destinationMode(low)}|${trigger(low)}${low & 0x1_0000 ? '|masked' : ''}`;
      return `pin ${event.pin} dst ${hex((event.e >> 56n) & 0xffn)} vec ${low & 0xff} (${kind})${coalesced(event)}`;
    }
    case 'kvm_pic_set_irq': {
      const bit = 1 << event.pin;
      const kind = `${event.elcr & bit ? 'level' : 'edge'}${event.imr & bit ? '|masked' : ''}`;
      return `chip ${event.chip} pin ${event.pin} (${kind})${coalesced(event)}`;
    }
    case 'kvm_set_irq':
      return `gsi ${event.gsi} level ${event.level} source ${event.irq_source_id}`;
    case 'kvm_ack_irq':
      return `irqchip ${event.irqchip} pin ${event.pin}`;
    case 'kvm_pv_tlb_flush':
      return `vcpu ${event.vcpu_id} need_flush ${event.need_flush_tlb}`;
  }
}

const coalesced = (event: { coalesced: boolean }) => (event.coalesced ? ' (coalesced)' : '');

/** Thread ID of vCPU 0; the others follow. */
const FIRST_THREAD_ID = 1000;

/** Seconds with six decimals, rounded to the nearest microsecond as the kernel does. */
function formatTimestamp(nanoseconds: number): string {
  const microseconds = Math.floor((nanoseconds + 500) / 1000);
  const seconds = Math.floor(microseconds / 1e6);
  return `${String(seconds).padStart(5)}.${String(microseconds - seconds * 1e6).padStart(6, '0')}`;
}

/** One line of the trace, without its end. */
export function formatEvent(event: TraceEvent): string {
  const task = `vcpu-${event.vcpu}`.padStart(16);
  const threadId = String(FIRST_THREAD_ID + event.vcpu).padEnd(7);
  const cpu = String(event.vcpu).padStart(3, '0');
  const time = formatTimestamp(event.timestampNanoseconds);
  return `${task}-${threadId} [${cpu}] ..... ${time}: ${event.name}: ${formatFields(event)}`;
}

/** The comment at the top of a trace. `entries` is unknown (and left out) while a trace is being written. */
export function ftraceHeader(vcpus: number, entries?: number): string {
  const counts = entries === undefined ? [] : [`# entries-in-buffer/entries-written: ${entries}/${entries}   #P:${vcpus}`, '#'];
  return [
    '# tracer: nop',
    '#',
    ...counts,
    '#                                _-----=> irqs-off/BH-disabled',
    '#                               / _----=> need-resched',
    '#                              | / _---=> hardirq/softirq',
    '#                              || / _--=> preempt-depth',
    '#                              ||| / _-=> migrate-disable',
    '#                              |||| /     delay',
    '#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION',
    '#              | |         |   |||||     |         |',
    '',
  ].join('\n');
}

/** Writes header and events as they come; text ends with a newline each time. Returns the function that stops it. */
export function writeFtrace(tracer: Tracer, vcpus: number, write: (text: string) => void): () => void {
  write(ftraceHeader(vcpus));
  return tracer.subscribe((event) => write(`${formatEvent(event)}\n`));
}
