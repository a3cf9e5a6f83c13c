/** A vCPU's registers as text: what a triple fault and `stateReport` show. */

import * as state from '../cpu/state.ts';
import { Activity, type Vcpu } from '../cpu/vcpu.ts';

const hex = (value: bigint | number, digits = 16): string => value.toString(16).padStart(digits, '0');
const GENERAL = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'];

export function stateReport(vcpu: Vcpu): string {
  const activity = Object.entries(Activity).find(([, value]) => value === vcpu.activity)?.[0];
  const lines = [`vCPU ${vcpu.index}: ${activity}, rip ${hex(vcpu.rip)}, rflags ${hex(vcpu.rflags, 8)}, CPL ${vcpu.cpl}, ${vcpu.get32(state.CODE_MODE) & ~state.CODE_64 || 64}-bit code`];
  for (let row = 0; row < 16; row += 4) {
    lines.push(`  ${GENERAL.slice(row, row + 4).map((name, i) => `${name.padEnd(3)} ${hex(vcpu.register(row + i))}`).join('  ')}`);
  }
  lines.push(`  cr0 ${hex(vcpu.get64(state.CR0), 8)}  cr2 ${hex(vcpu.get64(state.CR2))}  cr3 ${hex(vcpu.get64(state.CR3), 12)}  cr4 ${hex(vcpu.get64(state.CR4), 8)}  efer ${hex(vcpu.get64(state.EFER), 4)}`);
  for (let row = 0; row < 8; row += 2) {
    const shown = SEGMENTS.slice(row, row + 2).map((name, i) => {
      const at = state.SEGMENT + (row + i) * state.SEGMENT_SIZE;
      return `${name.padEnd(4)} ${hex(vcpu.get32(at + state.SEGMENT_SELECTOR), 4)} base ${hex(vcpu.get64(at))} limit ${hex(vcpu.get32(at + state.SEGMENT_LIMIT), 8)} attributes ${hex(vcpu.get32(at + state.SEGMENT_ATTRIBUTES), 6)}`;
    });
    lines.push(`  ${shown.join('  ')}`);
  }
  lines.push(`  gdt ${hex(vcpu.get64(state.GDTR_BASE))} limit ${hex(vcpu.get32(state.GDTR_LIMIT), 4)}  idt ${hex(vcpu.get64(state.IDTR_BASE))} limit ${hex(vcpu.get32(state.IDTR_LIMIT), 4)}`);
  return lines.join('\n');
}
