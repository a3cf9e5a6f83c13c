/** Processors: starting them, what each sets up for itself, and idling. */

import type { Assembler } from '../assembler/assembler.ts';
import {
  address,
  cx,
  dword,
  eax,
  ebx,
  ecx,
  edx,
  esp,
  fs,
  type GeneralRegister,
  mem,
  qword,
  rax,
  rdi,
  rdx,
  rsp,
  times,
  word,
} from '../assembler/operands.ts';
import { BAD_APICID } from '../apic/apic-constants.ts';
import { structureOffset } from '../apic/apic-driver.ts';
import type { GuestAbi, GuestFunctions } from '../apic/guest-abi.ts';
import { callMethod } from '../apic/native-access.ts';
import {
  APIC_BASE_ENABLE,
  APIC_BASE_EXTD,
  ApicRegister,
  LVT_DELIVERY_MODE_SHIFT,
  LVT_MASKED,
  MSR_APIC_BASE,
  SVR_ENABLE,
} from '../../interrupts/apic-registers.ts';
import { DeliveryMode } from '../../interrupts/message.ts';
import { printLine, type Texts } from './console.ts';
import { LARGE_PAGE, LARGE_PAGE_SHIFT, PAGE_ENTRIES, PRESENT_WRITABLE } from './boot.ts';
import { PER_CPU_BYTES, PER_CPU_SHIFT, PerCpu, Selector, TRAMPOLINE, Vector } from './layout.ts';

const MSR_GS_BASE = 0xc000_0101;
/** A method with one number, of the driver in use. */
export function apicWrite(a: Assembler, abi: GuestAbi, register: number, value: number | GeneralRegister): void {
  a.mov(abi.arguments32[1], value);
  a.mov(abi.arguments32[0], register);
  callMethod(a, abi, 'write');
}

/** The per-CPU area of the CPU in `cpu` (whole and low half of one register), into that register. */
export function perCpuArea(a: Assembler, whole: GeneralRegister, low: GeneralRegister): void {
  a.shl(low, PER_CPU_SHIFT);
  a.add(whole, address('per_cpu_areas'));
}

/** How often a processor that was woken is looked for before it is given up: some tens of milliseconds. */
const WAKE_PATIENCE = 10_000_000;

/** `tscHz` is what delays are measured by. */
export const processorFunctions = (tscHz: number, texts: Texts): GuestFunctions => ({
  /** (microseconds) */
  udelay(a, abi) {
    a.imul(ecx, abi.arguments32[0], Math.max(1, Math.round(tscHz / 1e6)));
    a.rdtsc();
    a.add(ecx, eax);
    a.label('.wait');
    a.pause();
    a.rdtsc();
    a.sub(eax, ecx);
    a.js('.wait');
    a.ret();
  },

  /** (CPU): its own area, IDT, and x2APIC mode if that is what the machine is in. */
  cpu_init(a, abi) {
    const [cpu] = abi.saved;
    const [cpu32] = abi.saved32;
    a.push(cpu);
    a.mov(cpu32, abi.arguments32[0]);
    a.mov(eax, cpu32);
    perCpuArea(a, abi.result, eax);
    if (abi.bits === 64) {
      a.mov(rdx, rax);
      a.shr(rdx, 32);
      a.mov(ecx, MSR_GS_BASE);
      a.wrmsr();
    } else {
      // A descriptor of its own, based at the area: limit 4 GiB, writable data.
      const descriptor = (offset: number) => dword(times(ebx, 8), address('gdt', Selector.perCpu + offset));
      a.mov(edx, eax);
      a.shl(edx, 16);
      a.mov(descriptor(0), edx);
      a.mov(word(times(ebx, 8), address('gdt', Selector.perCpu)), -1);
      a.mov(edx, eax);
      a.shr(edx, 16);
      a.and(edx, 0xff);
      a.mov(ecx, eax);
      a.and(ecx, 0xff00_0000);
      a.or(edx, ecx);
      a.or(edx, 0x00cf_9200);
      a.mov(descriptor(4), edx);
      a.lea(ecx, mem(times(ebx, 8), Selector.perCpu));
      a.mov(fs, cx);
    }
    a.mov(abi.perCpu('this_cpu_physical'), abi.result);
    a.mov(abi.perCpu('cpu_number', 32), cpu32);
    a.lidt(mem(address('idt_pointer')));
    a.cmp(dword('x2apic_mode'), 0);
    a.je('.xapic');
    a.mov(ecx, MSR_APIC_BASE);
    a.rdmsr();
    a.or(eax, APIC_BASE_ENABLE | APIC_BASE_EXTD);
    a.wrmsr();
    a.label('.xapic');
    a.pop(cpu);
    a.ret();
  },

  /** By the driver in use; LINT0 (the 8259s) masked, LINT1 NMI. */
  setup_local_apic(a, abi) {
    apicWrite(a, abi, ApicRegister.tpr, 0);
    callMethod(a, abi, 'initApicLdr');
    apicWrite(a, abi, ApicRegister.svr, SVR_ENABLE | Vector.spurious);
    apicWrite(a, abi, ApicRegister.lvtLint0, LVT_MASKED);
    apicWrite(a, abi, ApicRegister.lvtLint1, DeliveryMode.nmi << LVT_DELIVERY_MODE_SHIFT);
    a.cmp(dword('pv_eoi_enabled'), 0);
    a.je('.native');
    a.call('kvm_guest_cpu_init');
    a.label('.native');
    a.mov(eax, abi.perCpu('cpu_number', 32));
    a.lock().bts(abi.pointer('cpu_online_mask'), abi.result);
    a.ret();
  },

  /** Early logical IDs of all CPUs, where the driver has them. */
  assign_logical_ids(a, abi) {
    const [cpu] = abi.saved;
    const [cpu32] = abi.saved32;
    a.push(cpu);
    a.xor(cpu32, cpu32);
    a.label('.cpu');
    a.cmp(cpu32, dword('nr_cpu_ids'));
    a.jae('.done');
    a.mov(abi.scratch, abi.pointer('apic'));
    a.mov(eax, BAD_APICID);
    a.cmp(abi.pointer(abi.scratch, structureOffset('earlyLogicalApicId', abi.word)), 0);
    a.je('.unknown');
    a.mov(eax, cpu32);
    a.call(abi.pointer(abi.scratch, structureOffset('earlyLogicalApicId', abi.word)));
    a.label('.unknown');
    a.mov(dword(times(cpu, 4), address('x86_cpu_to_logical_apicid')), eax);
    a.inc(cpu32);
    a.jmp('.cpu');
    a.label('.done');
    a.pop(cpu);
    a.ret();
  },

  /** Starts the others, one after the other, each when the one before is online. One that does not come is the end. */
  start_processors(a, abi) {
    const [cpu, patience] = abi.saved;
    const [cpu32, patience32] = abi.saved32;
    a.push(cpu);
    a.push(patience);
    a.mov(cpu32, 1);
    a.label('.cpu');
    a.cmp(cpu32, dword('nr_cpu_ids'));
    a.jae('.done');
    a.mov(dword('booting_cpu'), cpu32);
    a.mov(abi.arguments32[0], TRAMPOLINE);
    a.call('setup_warm_reset_vector');
    a.mov(abi.arguments32[0], dword(times(cpu, 4), address('x86_cpu_to_apicid')));
    a.mov(abi.arguments32[1], TRAMPOLINE);
    const pointer = abi.bits === 64 ? abi.result : abi.scratch;
    a.mov(pointer, abi.pointer('apic'));
    a.mov(pointer, abi.pointer(pointer, structureOffset('wakeupSecondaryCpu', abi.word)));
    a.test(pointer, pointer);
    a.jnz('.own');
    a.call('wakeup_secondary_cpu_via_init');
    a.jmp('.wait');
    a.label('.own');
    a.call(pointer);
    a.label('.wait');
    a.mov(patience32, WAKE_PATIENCE);
    a.label('.look');
    a.bt(abi.pointer('cpu_online_mask'), cpu);
    a.jc('.online');
    a.pause();
    a.dec(patience32);
    a.jnz('.look');
    printLine(a, abi, texts, ['@@ not responding: CPU ', cpu32]);
    a.call('power_off');
    a.label('.online');
    a.inc(cpu32);
    a.jmp('.cpu');
    a.label('.done');
    a.pop(patience);
    a.pop(cpu);
    a.ret();
  },

  /** Where the trampoline ends: no stack yet. */
  secondary_start(a, abi) {
    a.mov(eax, dword('booting_cpu'));
    perCpuArea(a, abi.result, eax);
    a.lea(abi.bits === 64 ? rsp : esp, mem(abi.result, PER_CPU_BYTES));
    a.mov(abi.arguments32[0], dword('booting_cpu'));
    a.call('cpu_init');
    a.call('setup_local_apic');
    a.jmp('idle');
  },

  /** Sleeps until there is work, does it, sleeps. */
  idle(a, abi) {
    a.label('.idle');
    a.cli();
    a.mov(abi.result, abi.perCpu('work'));
    a.test(abi.result, abi.result);
    a.jnz('.work');
    a.sti().note('takes effect behind HLT: nothing is missed');
    a.hlt();
    a.jmp('.idle');
    a.label('.work');
    a.sti();
    a.call(abi.result);
    a.mov(abi.perCpu('work'), 0);
    a.jmp('.idle');
  },

  /** (function): on every CPU, this one included; returns when all are done. */
  run_on_all(a, abi) {
    const [work, cpu] = abi.saved;
    const [, cpu32] = abi.saved32;
    a.push(work);
    a.push(cpu);
    a.mov(work, abi.arguments[0]);
    a.mov(cpu32, 1);
    a.label('.give');
    a.cmp(cpu32, dword('nr_cpu_ids'));
    a.jae('.given');
    a.mov(eax, cpu32);
    perCpuArea(a, abi.result, eax);
    a.mov(abi.pointer(abi.result, PerCpu.work), work);
    a.inc(cpu32);
    a.jmp('.give');
    a.label('.given');
    a.mov(abi.arguments32[0], Vector.reschedule);
    callMethod(a, abi, 'sendIpiAllButSelf');
    a.call(work);
    a.mov(cpu32, 1);
    a.label('.wait');
    a.cmp(cpu32, dword('nr_cpu_ids'));
    a.jae('.done');
    a.mov(eax, cpu32);
    perCpuArea(a, abi.result, eax);
    a.label('.busy');
    a.pause();
    a.cmp(abi.pointer(abi.result, PerCpu.work), 0);
    a.jne('.busy');
    a.inc(cpu32);
    a.jmp('.wait');
    a.label('.done');
    a.pop(cpu);
    a.pop(work);
    a.ret();
  },

  /** (physical address): 1 GiB from there is to be seen in the window, which nothing has been seen in yet. 64-bit kernels alone. */
  map_mmio_window(a, abi) {
    if (abi.bits === 32) return a.ret();
    a.lea(rax, mem(rdi, PRESENT_WRITABLE | LARGE_PAGE));
    a.xor(edx, edx);
    a.label('.page');
    a.mov(qword(times(rdx, 8), address('mmio_window_directory')), rax);
    a.add(rax, 1 << LARGE_PAGE_SHIFT);
    a.inc(edx);
    a.cmp(edx, PAGE_ENTRIES);
    a.jb('.page');
    a.ret();
  },

  /** What a CPU does that goes offline: the host must forget its word; then nothing ever wakes it. The boot CPU returns. */
  offline(a, abi) {
    a.cli();
    a.cmp(dword('pv_eoi_enabled'), 0);
    a.je('.native');
    a.call('kvm_pv_guest_cpu_shutdown');
    a.label('.native');
    a.mov(eax, abi.perCpu('cpu_number', 32));
    a.lock().btr(abi.pointer('cpu_online_mask'), abi.result);
    a.test(eax, eax);
    a.jz('.boot');
    a.mov(abi.perCpu('work'), 0);
    a.label('.halt');
    a.cli();
    a.hlt();
    a.jmp('.halt');
    a.label('.boot');
    a.ret();
  },
});
