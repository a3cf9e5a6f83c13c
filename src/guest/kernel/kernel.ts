/**
 * The tiny kernel: made at run time from the assembler and the driver layer, booted by PVH, in long mode or 32-bit protected
 * mode. It finds its processors, chooses its APIC driver as Linux does, starts everyone, runs its workloads, reports on the
 * serial port in lines that start with `@@`, and powers off. Not there: user mode, memory management, a scheduler.
 */

import { type Assembler, assembler, type ObjectCode } from '../assembler/assembler.ts';
import { type LinkedImage, link } from '../assembler/linker.ts';
import { address, dword, eax, ebx, ecx, qword } from '../assembler/operands.ts';
import { type DriverName, structureSymbol } from '../apic/apic-driver.ts';
import { acknowledgeSymbol, driverLayer, type EoiState, emitFunction } from '../apic/driver-code.ts';
import { DRIVERS, driverNamed } from '../apic/drivers/all.ts';
import type { EmitFunction, GuestAbi, GuestBits, GuestFunctions } from '../apic/guest-abi.ts';
import { NATIVE_EOI_POINTER, PV_EOI_OVERRIDE } from '../apic/pv-eoi.ts';
import { bootCode, bootTables, trampolineImage } from './boot.ts';
import { consoleFunctions, type Printed, printLine, type Texts } from './console.ts';
import { elfImage } from './elf-image.ts';
import { HANDLERS, interruptFunctions, vectorStubs } from './interrupts.ts';
import { firmwareFunctions } from './firmware.ts';
import { absoluteSymbols, KERNEL_BASE, MAX_CPUS, PAGE_BYTES, PER_CPU_BYTES } from './layout.ts';
import { processorFunctions } from './processors.ts';
import { LEGACY_HANDLERS, serialFunctions } from './serial-interrupts.ts';
import { type Workload, workloadFunctions, workloadsOf } from './workloads.ts';

/** What firmware would have told, where it is to be another machine's; texts are padded with zeros. */
export interface PlatformFacts {
  acpiOemId?: string;
  acpiOemTableId?: string;
  mpOemId?: string;
  mpProductId?: string;
  acpiFadtFlags?: number;
  bootCpuFamily?: number;
  bootCpuModel?: number;
  dmiBigsmp?: boolean;
}

export interface KernelOptions {
  /** 64 unless given, or unless the driver is a 32-bit one. */
  bits?: GuestBits | undefined;
  /** How interrupts are ended; `pv-eoi` unless given, which needs the feature of the host, else it is `x2apic-eoi`. */
  state?: EoiState | undefined;
  /** A driver to use whatever probing says. */
  driver?: DriverName | undefined;
  /**
   * Use x2APIC mode if the processor has it and a hypervisor is there: true unless given, or unless the driver says otherwise.
   */
  x2apic?: boolean | undefined;
  platform?: PlatformFacts | undefined;
  /** Rounds of each workload; none unless given. */
  workloads?: Readonly<Partial<Record<Workload, number>>> | undefined;
  /**
   * CPUs pause between the rounds of a workload, and tick at rates of their own, by random numbers below this (a power of two;
   * loop iterations, timer counts): what makes a run depend on the machine's seed. 0 unless given: they don't.
   */
  longestPause?: number | undefined;
  /** The TSC's frequency, for delays; 1 GHz unless given. */
  tscHz?: number | undefined;
  /** Code of one's own, which the boot CPU calls behind the workloads, interrupts on. */
  program?: ((kit: ProgramKit) => void) | undefined;
  /** Handlers of one's own, functions of a vector; those of fixed interrupts end with `acknowledge`. */
  handlers?: Readonly<Record<number, (kit: ProgramKit) => void>> | undefined;
  /** Variables of the program's, 32 bits each, zero at first. */
  variables?: readonly string[] | undefined;
}

/** What a program of one's own is written with. */
export interface ProgramKit {
  a: Assembler;
  abi: GuestAbi;
  /** Prints a line `@@ note …`; caller-saved registers are lost. */
  say(...parts: Printed[]): void;
  /** Symbol of the function that ends an interrupt. */
  acknowledge: string;
}

export interface TinyKernel {
  /** An ELF64 file with a PVH entry. */
  elf: Uint8Array;
  bits: GuestBits;
  /** As it is loaded, with the addresses of its functions and data. */
  image: LinkedImage;
}

const CPUID_X2APIC = 1 << 21;
const CPUID_RDRAND = 1 << 30;
const KVM_LEAVES = 0x4000_0000;
const KVM_FEATURES = KVM_LEAVES + 1;
const KVM_SIGNATURE = 0x4b4d_564b; // "KVMK"
const KVM_FEATURE_PV_EOI = 6;
const MAX_TEXT_BYTES = 16;

const kernelMain =
  (
    options: Required<Pick<KernelOptions, 'state' | 'x2apic' | 'longestPause'>> & Pick<KernelOptions, 'driver'>,
    texts: Texts,
  ): EmitFunction =>
  (a, abi) => {
    a.call('setup_interrupts');
    a.call('read_firmware_tables');
    // A hypervisor that is KVM, and what it offers.
    a.mov(eax, KVM_LEAVES);
    a.cpuid();
    a.cmp(ebx, KVM_SIGNATURE);
    a.jne('.bare');
    a.mov(dword('is_kvm'), 1);
    if (options.state === 'pv-eoi') {
      a.mov(eax, KVM_FEATURES);
      a.cpuid();
      a.bt(eax, KVM_FEATURE_PV_EOI);
      a.jnc('.bare');
      a.mov(dword('pv_eoi_enabled'), 1);
    }
    a.label('.bare');
    if (options.x2apic) {
      // Without remapping, x2APIC is for guests, and physical.
      a.mov(eax, 1);
      a.cpuid();
      a.test(ecx, CPUID_X2APIC);
      a.jz('.xapic');
      a.cmp(dword('is_kvm'), 0);
      a.je('.xapic');
      a.mov(dword('x2apic_mode'), 1);
      a.mov(dword('x2apic_phys'), 1);
      a.label('.xapic');
    }
    if (options.longestPause) {
      a.mov(eax, 1);
      a.cpuid();
      a.and(ecx, CPUID_RDRAND);
      a.mov(dword('has_rdrand'), ecx);
    }
    identifyCpu(a);
    a.mov(dword('boot_cpu_has_apic'), 1);
    if (options.driver === 'noop') a.mov(dword('disable_apic'), 1);
    a.xor(abi.arguments32[0], abi.arguments32[0]);
    a.call('cpu_init');
    a.call('default_setup_apic_routing');
    if (options.driver) a.mov(abi.pointer('apic'), address(structureSymbol(options.driver)));
    if (abi.bits === 32) a.call('assign_logical_ids');
    else for (const [driver, systemInit] of SYSTEM_INIT) {
      a.cmp(qword('apic'), address(structureSymbol(driver)));
      a.jne(`.not_${driver}`);
      a.call(systemInit);
      a.label(`.not_${driver}`);
    }
    a.cmp(dword('pv_eoi_enabled'), 0);
    a.je('.native');
    a.mov(abi.arguments32[0], address(PV_EOI_OVERRIDE));
    a.call('apic_set_eoi_write');
    a.label('.native');
    a.call('setup_local_apic');
    a.sti();
    a.call('start_processors');
    a.call('print_banner');
    a.call('run_workloads');
    a.call('program');
    a.mov(abi.arguments32[0], address('offline'));
    a.call('run_on_all');
    a.call('report');
    printLine(a, abi, texts, ['@@ end']);
    a.call('power_off');
  };

/** What a driver's machine needs before the driver works. */
const SYSTEM_INIT: readonly [DriverName, string][] = [['numachip', 'numachip_system_init'], ['x2apic_uv_x', 'uv_system_init']];

/** Family and model by CPUID, unless the kernel was built with others. */
function identifyCpu(a: Assembler): void {
  a.cmp(dword('boot_cpu_family'), 0);
  a.jne('.identified');
  a.mov(eax, 1);
  a.cpuid();
  a.mov(ecx, eax);
  a.shr(ecx, 8);
  a.and(ecx, 0xf);
  a.mov(dword('boot_cpu_family'), ecx);
  a.mov(ecx, eax);
  a.shr(ecx, 4);
  a.and(ecx, 0xf);
  a.shr(eax, 12);
  a.and(eax, 0xf0);
  a.or(ecx, eax);
  a.mov(dword('boot_cpu_model'), ecx);
  a.label('.identified');
}

const printBanner =
  (texts: Texts): EmitFunction =>
  (a, abi) => {
    a.mov(abi.result, abi.pointer('apic'));
    a.mov(abi.result, abi.pointer(abi.result));
    a.push(abi.result);
    printLine(a, abi, texts, [
      '@@ boot bits=',
      abi.bits === 64 ? '64' : '32',
      ' cpus=',
      dword('nr_cpu_ids'),
      ' x2apic=',
      dword('x2apic_mode'),
      ' pv_eoi=',
      dword('pv_eoi_enabled'),
    ]);
    a.mov(abi.arguments32[0], address(bannerText(texts)));
    a.call('print_text');
    a.pop(abi.arguments[0]);
    a.call('print_text');
    printLine(a, abi, texts, ['']);
    a.ret();
  };

function bannerText(texts: Texts): string {
  texts.set('text_driver', '@@ driver ');
  return 'text_driver';
}

/** The kernel's variables. */
function kernelData(
  bits: GuestBits,
  platform: PlatformFacts,
  handlers: Readonly<Record<number, string>>,
  variables: readonly string[],
  texts: Texts,
): ObjectCode[] {
  const a = assembler(bits).align(64, 0);
  const word = bits / 8;
  const cpus = MAX_CPUS[bits];
  const pointer = (...values: (number | bigint | ReturnType<typeof address>)[]): unknown =>
    bits === 64 ? a.dq(...values) : a.dd(...values);
  const variable = (name: string, value = 0): unknown => a.label(name).dd(value);
  const text = (name: string, value = ''): void => {
    const encoded = new TextEncoder().encode(value);
    if (encoded.length > MAX_TEXT_BYTES) throw new Error(`${name}: more than ${MAX_TEXT_BYTES} bytes`);
    a.label(name)
      .db(encoded)
      .reserve(MAX_TEXT_BYTES - encoded.length);
  };
  a.label('apic');
  pointer(address(structureSymbol(bits === 64 ? 'flat' : 'default')));
  a.label(NATIVE_EOI_POINTER);
  pointer(0);
  for (const name of ['cpu_online_mask', 'receivers', 'uv_global_mmr64_base']) {
    a.label(name);
    pointer(0);
  }
  a.label('cpu_all_mask');
  pointer((1n << BigInt(cpus)) - 1n);
  a.label('cpu_bit_masks');
  pointer(...Array.from({ length: cpus }, (_, cpu) => 1n << BigInt(cpu)));
  a.label('cpus_in_cluster').reserve(cpus * word);
  for (const name of ['x86_cpu_to_apicid', 'x86_cpu_to_logical_apicid', 'answers']) a.label(name).reserve(cpus * 4);
  for (const name of [
    'start_info',
    'nr_cpu_ids',
    'num_possible_cpus',
    'booting_cpu',
    'is_kvm',
    'pv_eoi_enabled',
    'x2apic_mode',
    'x2apic_phys',
    'uv_apicid_hibits',
    'boot_cpu_has_apic',
    'disable_apic',
    'noop_warnings',
    'no_broadcast',
    'found_numaq',
    'es7000_psai',
    'cobalt_lock',
    'ball',
    'receiver_count',
    'serial_leave_alone',
    'serial_handled',
    'serial_waiter',
    'nested_logged',
    'has_rdrand',
    ...variables,
  ])
    variable(name);
  variable('boot_cpu_family', platform.bootCpuFamily ?? 0);
  variable('boot_cpu_model', platform.bootCpuModel ?? 0);
  variable('dmi_bigsmp', platform.dmiBigsmp ? 1 : 0);
  variable('acpi_fadt_flags', platform.acpiFadtFlags ?? 0);
  text('acpi_oem_id', platform.acpiOemId);
  text('acpi_oem_table_id', platform.acpiOemTableId);
  text('mp_oem_id', platform.mpOemId);
  text('mp_product_id', platform.mpProductId);
  a.label('nested_log').reserve(8);
  a.label('mailboxes').reserve(cpus * 64);
  a.align(16, 0).label('handlers');
  pointer(...Array.from({ length: 256 }, (_, vector) => address(handlers[vector] ?? 'unexpected_interrupt')));
  a.align(16, 0)
    .label('idt')
    .reserve(256 * (bits === 64 ? 16 : 8));
  a.label('idt_pointer').dw(256 * (bits === 64 ? 16 : 8) - 1);
  pointer(address('idt'));
  const strings = assembler(bits);
  for (const [symbol, value] of texts) strings.label(symbol).db(value, 0);
  return [a.assemble(), strings.assemble()];
}

/** Assembles and links a kernel. */
export function buildKernel(options: KernelOptions = {}): TinyKernel {
  const { driver, state = 'pv-eoi', platform = {}, workloads = {}, longestPause = 0, tscHz = 1e9 } = options;
  const wanted =
    driver === undefined
      ? undefined
      : (DRIVERS.find((candidate) => candidate.name === driver && candidate.bits === options.bits) ?? driverNamed(driver));
  const bits = options.bits ?? wanted?.bits ?? 64;
  if (wanted && wanted.bits !== bits) throw new Error(`the driver ${driver} is for ${wanted.bits}-bit kernels`);
  if (longestPause & (longestPause - 1)) throw new Error(`longestPause: ${longestPause} is no power of two`);
  const usesX2apic = wanted ? wanted.methods.read === 'native_apic_msr_read' : (options.x2apic ?? true) && bits === 64;
  const wiring = driver === 'visws' ? 'cobalt' : driver === 'noop' ? '8259' : 'io-apic';
  for (const workload of Object.keys(workloads) as Workload[]) {
    if (workloads[workload] && !workloadsOf(driver).includes(workload)) throw new Error(`the driver ${driver} has no interrupts for the workload ${workload}`);
  }
  const texts: Texts = new Map();
  const functions: GuestFunctions = {
    ...consoleFunctions,
    ...firmwareFunctions({ driver, mostCpus: Math.min(MAX_CPUS[bits], wanted?.cpus?.most ?? MAX_CPUS[bits]) }),
    ...processorFunctions(tscHz, texts),
    ...interruptFunctions(state, texts),
    ...serialFunctions(wiring, acknowledgeSymbol(state)),
    ...workloadFunctions({ counts: workloads, state, longestPause, hasApic: driver !== 'noop' }, texts),
    print_banner: printBanner(texts),
    kernel_main: kernelMain({ state, driver, longestPause, x2apic: usesX2apic }, texts),
  };
  const kit = (a: Assembler, abi: GuestAbi): ProgramKit => ({
    a,
    abi,
    say: (...parts) => printLine(a, abi, texts, ['@@ note ', ...parts]),
    acknowledge: acknowledgeSymbol(state),
  });
  functions.program = (a, abi) => {
    for (const register of abi.saved) a.push(register);
    options.program?.(kit(a, abi));
    a.label('.out');
    for (const register of [...abi.saved].reverse()) a.pop(register);
    a.ret();
  };
  const handlers: Record<number, string> = { ...HANDLERS, ...(wiring === '8259' ? LEGACY_HANDLERS : {}) };
  for (const [vector, handler] of Object.entries(options.handlers ?? {})) {
    handlers[Number(vector)] = `handle_own_${vector}`;
    functions[handlers[Number(vector)]] = (a, abi) => handler(kit(a, abi));
  }
  const code = Object.entries(functions).map(([symbol, emit]) => emitFunction(symbol, emit, bits));
  const roots = code.flatMap(({ relocations }) => relocations.map(({ symbol }) => symbol));
  const objects = [
    bootCode(bits),
    vectorStubs(bits),
    ...code,
    ...driverLayer(bits, state, roots),
    ...bootTables(bits),
    ...kernelData(bits, platform, handlers, options.variables ?? [], texts),
  ];
  // Its size does not depend on the addresses: the trampoline is made twice, of them all zero and of them as they are.
  const trampoline = (kernel: Parameters<typeof trampolineImage>[1]): ObjectCode =>
    assembler(bits).align(16, 0).label('trampoline').db(trampolineImage(bits, kernel)).assemble();
  const perCpu = assembler(bits).align(PAGE_BYTES, 0).label('per_cpu_areas').assemble();
  const linked = (page: ObjectCode) =>
    link([...objects, page, perCpu], {
      base: KERNEL_BASE,
      absolute: { ...absoluteSymbols(bits), trampoline_bytes: page.bytes.length },
    });
  const { symbols: first } = linked(trampoline({ gdt: 0, pml4: 0, secondaryStart: 0 }));
  const at = (name: string): number => first.get(name) ?? 0;
  const image = linked(trampoline({ gdt: at('gdt'), pml4: at('pml4'), secondaryStart: at('secondary_start') }));
  const { bytes } = image;
  const entry = image.symbols.get('pvh_entry') as number;
  return {
    elf: elfImage({ base: KERNEL_BASE, bytes, memoryBytes: bytes.length + MAX_CPUS[bits] * PER_CPU_BYTES, entry }),
    bits,
    image,
  };
}
