/**
 * What firmware tells: processors and who made the machine, from ACPI's tables, from an MP table where there is no ACPI, or, on a Visual
 * Workstation, from the table that its PROM leaves. Sources: ACPI 6.5 chapter 5, MultiProcessor Specification 1.4 chapter 4.
 */

import type { Assembler } from '../assembler/assembler.ts';
import { address, ax, byte, cl, dword, dx, eax, ecx, edx, type GeneralRegister, times, word } from '../assembler/operands.ts';
import type { DriverName } from '../apic/apic-driver.ts';
import type { GuestAbi, GuestFunctions } from '../apic/guest-abi.ts';
import { COBALT_CPU_COUNT } from '../../interrupts/cobalt-apic.ts';

/**
 * Offsets: of the RSDP in PVH's start info, the XSDT in the RSDP, a table's length, its OEM texts, the first entry, FADT's flags.
 */
const START_INFO_RSDP = 32;
const RSDP_XSDT = 24;
const TABLE_LENGTH = 4;
const TABLE_OEM_ID = 10;
const TABLE_OEM_TABLE_ID = 16;
const TABLE_HEADER = 36;
const FADT_FLAGS = 112;
const MADT_ENTRIES = 44;
const MADT_LOCAL_APIC = 0;
const MADT_LOCAL_X2APIC = 9;

/** The MP table: where its pointer is searched, and offsets in pointer, header and entries. */
const MP_AREA = { from: 0xf_0000, to: 0x10_0000, step: 16 } as const;
const MP_POINTER_TABLE = 4;
const MP = { length: 4, oemId: 8, productId: 16, oemTable: 28, entries: 44 } as const;
const MP_PROCESSOR_BYTES = 20;
const MP_ENTRY_BYTES = 8;
const MP_PROCESSOR = { apicId: 1, flags: 3 } as const;
/** NUMA-Q's translation records: where they begin in the OEM table, their size, and the quad in one. */
const TRANSLATIONS = { first: 16, bytes: 8, quad: 3 } as const;
const QUAD_SHIFT = 4;

/** The warm-reset vector, by which a BIOS goes on in a kernel; NUMA-Q's is that of the NMI, in the real-mode vector table. */
const WARM_RESET_VECTOR = 0x467;
const NMI_RESET_VECTOR = 0x8;

const signature = (text: string): number => new DataView(new TextEncoder().encode(text).buffer).getUint32(0, true);

/** Copies double words of a text, unless the kernel was built with one. */
function copyText(a: Assembler, from: GeneralRegister, offset: number, to: string, bytes: readonly number[]): void {
  a.cmp(dword(to), 0);
  a.jne(`.has_${to}`);
  for (const at of bytes) {
    a.mov(eax, dword(from, offset + at));
    a.mov(dword(to, at), eax);
  }
  a.label(`.has_${to}`);
}

export interface FirmwareOptions {
  /** CPUs beyond so many are left alone. */
  mostCpus: number;
  driver: DriverName | undefined;
}

export const firmwareFunctions = ({ mostCpus, driver }: FirmwareOptions): GuestFunctions => ({
  read_firmware_tables(a, abi) {
    if (driver === 'visws') return a.jmp('visws_find_smp_config');
    const [at, end] = abi.saved;
    const [at32, end32] = abi.saved32;
    a.mov(eax, dword('start_info'));
    a.mov(eax, dword(abi.result, START_INFO_RSDP));
    a.test(eax, eax);
    a.jz('read_mp_table');
    a.push(at);
    a.push(end);
    a.mov(at32, dword(abi.result, RSDP_XSDT));
    a.mov(end32, dword(at, TABLE_LENGTH));
    a.add(end, at);
    a.add(at, TABLE_HEADER);
    a.label('.table');
    a.cmp(at, end);
    a.jae('.done');
    a.mov(eax, dword(at));
    a.add(at, 8);
    a.cmp(dword(abi.result), signature('FACP'));
    a.jne('.madt');
    a.mov(ecx, dword(abi.result, FADT_FLAGS));
    a.or(dword('acpi_fadt_flags'), ecx);
    a.jmp('.table');
    a.label('.madt');
    a.mov(abi.arguments32[0], eax);
    if (abi.bits === 32) {
      a.cmp(dword(eax), signature('OEM1'));
      a.jne('.processors');
      a.call('es7000_read_oem_table');
      a.jmp('.table');
      a.label('.processors');
    }
    a.cmp(dword(abi.result), signature('APIC'));
    a.jne('.table');
    a.call('read_madt');
    a.jmp('.table');
    a.label('.done');
    a.pop(end);
    a.pop(at);
    a.ret();
  },

  /** (APIC ID) */
  add_cpu(a, abi) {
    a.mov(abi.scratch32, dword('nr_cpu_ids'));
    a.cmp(abi.scratch32, mostCpus);
    a.jae('.full');
    a.mov(dword(times(abi.scratch, 4), address('x86_cpu_to_apicid')), abi.arguments32[0]);
    a.inc(dword('nr_cpu_ids'));
    a.inc(dword('num_possible_cpus'));
    a.label('.full');
    a.ret();
  },

  /** (MADT). OEM texts that were given when the kernel was built stay. */
  read_madt(a, abi) {
    const [at, end] = abi.saved;
    const [at32, end32] = abi.saved32;
    a.push(at);
    a.push(end);
    a.mov(at32, abi.arguments32[0]);
    copyText(a, at, TABLE_OEM_ID, 'acpi_oem_id', [0, 2]);
    copyText(a, at, TABLE_OEM_TABLE_ID, 'acpi_oem_table_id', [0, 4]);
    a.mov(end32, dword(at, TABLE_LENGTH));
    a.add(end, at);
    a.add(at, MADT_ENTRIES);
    a.label('.entry');
    a.cmp(at, end);
    a.jae('.done');
    a.movzx(abi.arguments32[0], byte(at, 3));
    a.mov(ecx, dword(at, 4));
    a.cmp(byte(at), MADT_LOCAL_APIC);
    a.je('.cpu');
    a.mov(abi.arguments32[0], dword(at, 4));
    a.mov(ecx, dword(at, 8));
    a.cmp(byte(at), MADT_LOCAL_X2APIC);
    a.jne('.skip');
    a.label('.cpu');
    a.test(ecx, 1).note('enabled');
    a.jz('.skip');
    a.call('add_cpu');
    a.label('.skip');
    a.movzx(eax, byte(at, 1));
    a.add(at, abi.result);
    a.jmp('.entry');
    a.label('.done');
    a.pop(end);
    a.pop(at);
    a.ret();
  },

  /** The MP table, if there is one. Where it comes with translation records, a CPU's ID is the logical one of its quad. */
  read_mp_table(a, abi) {
    const [at, end, translation] = abi.saved;
    const [at32, end32, translation32] = abi.saved32;
    for (const register of [at, end, translation]) a.push(register);
    a.mov(at32, MP_AREA.from);
    a.label('.search');
    a.cmp(dword(at), signature('_MP_'));
    a.je('.found');
    a.add(at32, MP_AREA.step);
    a.cmp(at32, MP_AREA.to);
    a.jb('.search');
    a.jmp('.done');
    a.label('.found');
    a.mov(at32, dword(at, MP_POINTER_TABLE));
    copyText(a, at, MP.oemId, 'mp_oem_id', [0, 4]);
    copyText(a, at, MP.productId, 'mp_product_id', [0, 4, 8]);
    a.mov(translation32, dword(at, MP.oemTable));
    a.movzx(end32, word(at, MP.length));
    a.add(end, at);
    a.add(at, MP.entries);
    a.label('.entry');
    a.cmp(at, end);
    a.jae('.done');
    a.cmp(byte(at), 0);
    a.jne('.other');
    a.movzx(abi.arguments32[0], byte(at, MP_PROCESSOR.apicId));
    a.test(translation32, translation32);
    a.jz('.id');
    a.mov(ecx, abi.arguments32[0]);
    a.mov(edx, 1);
    a.shl(edx, cl);
    a.movzx(eax, byte(translation, TRANSLATIONS.first + TRANSLATIONS.quad));
    a.shl(eax, QUAD_SHIFT);
    a.or(eax, edx);
    if (abi.bits === 64) a.mov(abi.arguments32[0], eax);
    a.add(translation32, TRANSLATIONS.bytes);
    a.label('.id');
    a.test(byte(at, MP_PROCESSOR.flags), 1);
    a.jz('.disabled');
    a.call('add_cpu');
    a.label('.disabled');
    a.add(at, MP_PROCESSOR_BYTES - MP_ENTRY_BYTES);
    a.label('.other');
    a.add(at, MP_ENTRY_BYTES);
    a.jmp('.entry');
    a.label('.done');
    for (const register of [translation, end, at]) a.pop(register);
    a.ret();
  },

  /** A count, and processor entries as an MP table has them. */
  visws_find_smp_config(a, abi) {
    const [at, left] = abi.saved;
    const [at32, left32] = abi.saved32;
    a.push(at);
    a.push(left);
    a.mov(at32, COBALT_CPU_COUNT);
    a.movzx(left32, word(at));
    a.add(at32, 2);
    a.label('.cpu');
    a.dec(left32);
    a.js('.done');
    a.movzx(abi.arguments32[0], byte(at, MP_PROCESSOR.apicId));
    a.call('add_cpu');
    a.add(at32, MP_PROCESSOR_BYTES);
    a.jmp('.cpu');
    a.label('.done');
    a.pop(left);
    a.pop(at);
    a.ret();
  },

  /** (start address): where a processor goes on that is woken, but not by a start-up message. */
  setup_warm_reset_vector(a, abi: GuestAbi) {
    if (abi.bits === 64) a.mov(eax, abi.arguments32[0]);
    a.mov(abi.scratch32, WARM_RESET_VECTOR);
    a.cmp(dword('found_numaq'), 0);
    a.je('.write');
    a.mov(abi.scratch32, NMI_RESET_VECTOR);
    a.label('.write');
    a.mov(edx, eax);
    a.and(edx, 0xf);
    a.mov(word(abi.scratch), dx);
    a.shr(eax, 4);
    a.mov(word(abi.scratch, 2), ax);
    a.ret();
  },
});
