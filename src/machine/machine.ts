/**
 * The virtual machine: a PC with vCPUs that run in one thread, the one whose clock lags behind first. Deterministic: the same
 * options give the same run, instruction for instruction.
 */

import { type CpuModel, DEFAULT_CPU_MODEL, featureBits } from '../cpu/cpu-model.ts';
import { cpuid, signature } from '../cpu/cpuid.ts';
import { resetVcpu } from '../cpu/control-registers.ts';
import { Msr, readCpuMsr, writeCpuMsr } from '../cpu/msr.ts';
import { CS, setCpl, setSegment, SS } from '../cpu/segments.ts';
import * as state from '../cpu/state.ts';
import { Activity, type Vcpu } from '../cpu/vcpu.ts';
import { Engine } from '../engine/engine.ts';
import { EmulationFailure, type Environment, type Intercept } from '../engine/environment.ts';
import type { JitClock, JitReport, RegionRecord } from '../engine/jit/jit-statistics.ts';
import { layOut } from '../engine/layout.ts';
import { DEFAULT_RTC_EPOCH_SECONDS } from '../devices/rtc-cmos.ts';
import { ApicRegister } from '../interrupts/apic-registers.ts';
import { IoApic } from '../interrupts/io-apic.ts';
import { LocalApic } from '../interrupts/local-apic.ts';
import { InterruptRouter } from '../interrupts/router.ts';
import { type CostProfile, DEFAULT_COST_PROFILE } from '../kvm/cost-profile.ts';
import { apicAccessExits, controlRegisterReadExits, controlRegisterWriteExits, cr8WriteExits, exceptionExits, Exit, exitDetail, isKernelMmio, isKernelPort, msrExits } from '../kvm/exit.ts';
import { ExitAccounting } from '../kvm/exit-accounting.ts';
import { hasFeature, KVM_ON, kvmCpuid, type KvmFeatureSet } from '../kvm/features.ts';
import { hypercall } from '../kvm/hypercall.ts';
import { ioApicEoiRule } from '../kvm/io-apic-eoi.ts';
import { isKvmMsr, KvmVcpu } from '../kvm/kvm-vcpu.ts';
import { PvWallClock } from '../kvm/pv-clock.ts';
import type { AccessBytes } from '../memory/bus.ts';
import { GuestMemory, MAX_RAM_BYTES } from '../memory/guest-memory.ts';
import { Counters, type CountersSnapshot } from '../trace/counters.ts';
import { Tracer } from '../trace/tracepoints.ts';
import { type BootMethod, prepareBoot } from './boot/boot.ts';
import { CallTracer, type TracePoint } from './call-tracer.ts';
import type { BootSegment, BootState } from './boot/boot-state.ts';
import { PcDevices } from './pc-devices.ts';
import { PLATFORMS, type PlatformName } from './platforms/all.ts';
import type { Backplane, Platform } from './platforms/platform.ts';
import { RandomSource } from './random.ts';
import { SerialConsole } from './serial-console.ts';
import { stateReport } from './state-report.ts';
import { UserError } from './user-error.ts';
import { VirtualCpu } from './virtual-cpu.ts';
import { MachineClock, TimerQueue } from './virtual-clock.ts';

export interface MachineOptions {
  /** Guest RAM in bytes, a multiple of 64 KiB up to 3 GiB. */
  memoryBytes: number;
  /** Number of vCPUs, 1 to 254; some platforms have fewer. */
  vcpus: number;
  /** A bzImage or an ELF vmlinux with a PVH entry. */
  kernel: Uint8Array;
  initrd?: Uint8Array | undefined;
  /** The kernel's command line. */
  append?: string | undefined;
  boot?: BootMethod | undefined;
  /** The processor's features. */
  cpu?: CpuModel | undefined;
  /** Which machine it is: how processors are numbered, reached and woken, and what firmware says; `pc` unless given. */
  platform?: PlatformName | undefined;
  /** Whether the processor offers x2APIC (some platforms' never do). Linux uses it, if KVM's features are visible too. */
  apic?: 'xapic' | 'x2apic' | undefined;
  kvm?: KvmFeatureSet | undefined;
  cost?: CostProfile | undefined;
  /** The test device for bare-metal programs (devices/test-device.ts). */
  testDevice?: boolean | undefined;
  /** Seeds RDRAND. */
  seed?: number | undefined;
  /** What the real-time clock shows at power-on, in seconds since 1970. */
  epochSeconds?: number | undefined;
  /** Compile hot code; true unless given. 'force': all code, at first sight. Guests run the same in any case, instruction for instruction. */
  jit?: boolean | 'force' | undefined;
  /** Count what compiled code does, for `jitReport`, by this clock (milliseconds). Takes time; changes nothing else. */
  jitClock?: JitClock | undefined;
  /** Idle time is not skipped: `run` returns 'idle' and the caller waits. */
  realtime?: boolean | undefined;
}

/** How a run ended. */
export type RunEnd = 'power-off' | 'reboot' | 'panic' | 'triple-fault' | 'debug-exit' | 'hung' | 'emulation-failure';

/** What a program that runs a machine exits with; a debug exit has its own. */
export const EXIT_STATUS: Record<Exclude<RunEnd, 'debug-exit'>, number> = { 'power-off': 0, reboot: 3, panic: 4, 'triple-fault': 5, hung: 6, 'emulation-failure': 7 };

export type RunResult =
  | { kind: 'ended'; end: RunEnd; exitStatus: number; /** One line; of faults, the vCPUs' states too. */ report: string }
  /** The budget is used up. */
  | { kind: 'budget' }
  /** Every vCPU sleeps until then (guest time); Infinity: until input comes. Only with `realtime`. */
  | { kind: 'idle'; untilNanoseconds: number };

export interface RunBudget {
  guestNanoseconds?: number | undefined;
  instructions?: number | undefined;
}

/** The vCPUs' TSC: a cycle is a nanosecond. */
export const TSC_HZ = 1_000_000_000;
const NANOSECONDS_PER_CYCLE = 1e9 / TSC_HZ;
/** How far a vCPU may run ahead of the others, in cycles. */
const QUANTUM_CYCLES = 20_000;
const MAX_SLICE = 10_000_000;
const NEVER = Number.POSITIVE_INFINITY;
/** What Linux says last when it panics and does not reboot. */
const PANIC_TEXT = 'Kernel panic - not syncing';
const PANIC_END = '---[ end Kernel panic';

export class Machine {
  readonly memory: GuestMemory;
  readonly engine: Engine;
  readonly tracer: Tracer;
  readonly serial: SerialConsole;
  readonly cpus: VirtualCpu[];
  readonly router: InterruptRouter;
  readonly devices: PcDevices;
  /** What was written to the debug console (port 0xE9). */
  readonly debugConsole = new SerialConsole(() => {});
  private readonly counting: Counters;
  private readonly accounting: ExitAccounting;
  private readonly queue = new TimerQueue();
  /** Cycles of each vCPU that are not instructions: charged or slept. */
  private readonly otherCycles: Float64Array;
  /** The vCPU whose slice it is, or -1. */
  private current = -1;
  /** Cycles at which the slice should end. */
  private sliceEnd = 0;
  /** Guest time while nobody runs: that of the event being handled. */
  private idleNow = 0;
  private ended: RunResult | undefined;
  private panicked = false;
  private readonly realtime: boolean;
  private readonly kvmFeatures: KvmFeatureSet;
  private readonly x2apic: boolean;
  private readonly platform: Platform;
  private readonly random: RandomSource;
  private callTracer: CallTracer | undefined;

  constructor(options: MachineOptions) {
    const { vcpus, memoryBytes } = options;
    const platform = PLATFORMS[options.platform ?? 'pc'];
    this.platform = platform;
    if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > platform.maxVcpus) throw new UserError(`a ${platform.name} has 1 to ${platform.maxVcpus} vCPUs, not ${vcpus} (${platform.limit})`);
    if (platform.startsInX2apicMode && options.apic === 'xapic') throw new UserError(`a ${platform.name} has no xAPIC mode: its processors start in x2APIC mode`);
    if (!(memoryBytes > 0) || memoryBytes > MAX_RAM_BYTES || memoryBytes % 65536) throw new UserError(`memory must be a multiple of 64 KiB up to 3 GiB, not ${memoryBytes} bytes`);
    const kvm = options.kvm ?? KVM_ON;
    this.kvmFeatures = kvm;
    this.x2apic = (options.apic ?? 'x2apic') === 'x2apic' && !platform.hasNoX2apic;
    const ownModel = options.cpu ?? DEFAULT_CPU_MODEL;
    const model = platform.processor?.(ownModel) ?? ownModel;
    this.realtime = options.realtime ?? false;
    this.random = new RandomSource(options.seed ?? 1);
    const epochSeconds = options.epochSeconds ?? DEFAULT_RTC_EPOCH_SECONDS;

    const layout = layOut(vcpus, memoryBytes);
    this.memory = new GuestMemory({ ramBytes: memoryBytes, arenaBytes: layout.arenaBytes });
    // What cannot be booted is found out before anything expensive is made.
    const apicIds = Array.from({ length: vcpus }, (_, position) => platform.apicId(position));
    const { acpi, blocks } = platform.firmware(apicIds, signature(model), featureBits(model, '1.edx'));
    const boot = prepareBoot(this.memory, { kernel: options.kernel, initrd: options.initrd, append: options.append ?? '', method: options.boot ?? 'auto', acpi, firmware: blocks });
    this.otherCycles = new Float64Array(vcpus);
    this.engine = new Engine(this.memory, layout, this.environment(model), options.jit ?? true, options.jitClock);
    this.tracer = new Tracer(() => this.nowNanoseconds);
    this.counting = new Counters(vcpus);
    this.accounting = new ExitAccounting({
      counters: this.counting,
      profile: options.cost ?? DEFAULT_COST_PROFILE,
      tracer: this.tracer,
      isa: 'svm',
      rip: (index) => this.engine.ripOf(this.engine.vcpus[index]),
    });

    const clock = new MachineClock(this.queue, () => this.nowNanoseconds);
    this.queue.onChange = () => this.deadlineMoved();
    const extendedDestinationId = hasFeature(kvm, 'msi-ext-dest-id');
    this.router = new InterruptRouter({ extendedDestinationId, boards: platform.boards });
    const ioApic = new IoApic({ id: 0, send: (message) => this.router.deliver(message), extendedDestinationId });
    this.router.addIoApic(ioApic);
    this.serial = new SerialConsole((bytes) => this.receive(bytes));
    this.devices = new PcDevices({
      memory: this.memory,
      clock,
      ioApic,
      vcpuCount: vcpus,
      epochSeconds,
      testDevice: options.testDevice ?? false,
      onSerialByte: (byte) => this.serial.put(byte),
      onDebugByte: (byte) => this.debugConsole.put(byte),
      onReset: () => (this.panicked ? this.end('panic', 'the kernel panicked and reset the machine') : this.end('reboot', 'the guest reset the machine')),
      onSleep: () => this.end('power-off', 'the guest powered off'),
      onDebugExit: (exitStatus) => this.finish({ kind: 'ended', end: 'debug-exit', exitStatus, report: `the guest left by the debug exit with status ${exitStatus}` }),
    });
    this.watchForPanic();

    const wallClock = new PvWallClock(this.memory, BigInt(epochSeconds) * 1_000_000_000n);
    this.cpus = this.engine.vcpus.map((vcpu) => this.createCpu(vcpu, clock, wallClock, kvm));
    this.router.connectPic(this.devices.pic, this.cpus[0].apic);
    this.router.enterVirtualWireMode(this.cpus[0].apic);
    for (const { vcpu } of this.cpus) {
      resetVcpu(vcpu, false);
      vcpu.activity = vcpu.index === 0 ? Activity.running : Activity.waitForSipi;
      // The first entry is one, too.
      vcpu.set32(state.EVENT_PENDING, 1);
    }
    if (platform.startsInX2apicMode) for (const { apic } of this.cpus) apic.enterX2apicMode();
    platform.attach?.(this.backplane());
    enterBootState(this.engine.vcpus[0], boot);
  }

  private createCpu(vcpu: Vcpu, clock: MachineClock, wallClock: PvWallClock, kvm: KvmFeatureSet): VirtualCpu {
    const { index } = vcpu;
    const apic = new LocalApic({
      apicId: this.platform.apicId(index),
      bootProcessor: index === 0,
      clock,
      readTsc: () => Number(this.tscOf(vcpu)),
      tscHz: TSC_HZ,
      x2apic: this.x2apic,
      physicalIdBits: this.platform.physicalIdBits,
      physicalAddressBits: vcpu.model.physicalAddressBits,
    });
    this.router.addLocalApic(apic);
    const cpu = new VirtualCpu({
      vcpu,
      engine: this.engine,
      apic,
      router: this.router,
      accounting: this.accounting,
      counters: this.counting,
      tracer: this.tracer,
      charge: (cycles) => this.charge(index, cycles),
      woken: () => this.wake(index),
    });
    cpu.kvm = new KvmVcpu({
      kvm,
      memory: this.memory,
      localApic: {
        endOfInterrupt: () => cpu.endOfInterrupt(),
        hasPendingIrr: () => apic.hasPendingIrr(),
        highestInService: () => apic.highestInService(),
        isEnabled: () => apic.isEnabled(),
      },
      ioApicEoi: ioApicEoiRule(this.router.ioApics, apic),
      pvEoiObserver: this.accounting.pvEoiObserver(index),
      clockSource: { tscHz: TSC_HZ, reference: () => ({ tsc: vcpu.get64(state.TSC_OFFSET), systemNanoseconds: 0n }), isStable: () => true },
      wallClock,
      stealTimeHost: { flushTlb: () => this.engine.flushAll(vcpu.base) },
    });
    return cpu;
  }

  /** What the platform's own hardware is connected to. */
  private backplane(): Backplane {
    const apics = this.cpus.map(({ apic }) => apic);
    return {
      mmio: this.devices.mmio,
      pic: this.devices.pic,
      router: this.router,
      apics,
      accessor: () => apics[Math.max(this.current, 0)],
      send: (message, board) => {
        this.router.deliverOn(board, message);
        if (this.current >= 0) this.engine.requestExit(this.engine.vcpus[this.current].base);
      },
      setMsr: (processor, msr, value) => this.cpus[processor].inertMsrs.define(msr, value),
      park: (processor, segment, offset, stackTop) => {
        const vcpu = this.engine.vcpus[processor];
        const realMode = (value: number, attributes: number) => ({ base: BigInt(value) << 4n, limit: 0xffff, attributes });
        setSegment(vcpu, CS, segment, realMode(segment, 0x9b00));
        setSegment(vcpu, SS, 0, realMode(0, 0x9300));
        vcpu.rip = BigInt(offset);
        vcpu.set64(state.RSP, BigInt(stackTop));
        vcpu.activity = Activity.halted;
      },
    };
  }

  // --- Time ---------------------------------------------------------------------------------------

  /** A vCPU's clock in cycles since power-on. */
  private cyclesOf(index: number): number {
    return this.engine.retired(this.engine.vcpus[index]) + this.otherCycles[index];
  }

  /** Guest time in nanoseconds since power-on, as who acts now sees it. */
  get nowNanoseconds(): number {
    return this.current >= 0 ? this.cyclesOf(this.current) * NANOSECONDS_PER_CYCLE : this.idleNow;
  }

  /** Instructions all vCPUs have retired. */
  get instructions(): number {
    return this.engine.vcpus.reduce((sum, vcpu) => sum + this.engine.retired(vcpu), 0);
  }

  private tscOf(vcpu: Vcpu): bigint {
    return BigInt.asUintN(64, BigInt(this.engine.cycles(vcpu)) + vcpu.get64(state.TSC_OFFSET));
  }

  private charge(index: number, cycles: number): void {
    this.addCycles(index, cycles);
    if (index === this.current) this.engine.shorten(this.engine.vcpus[index].base, Math.ceil(cycles));
  }

  /** A sleeping vCPU goes on: its clock catches up with the present. */
  private wake(index: number): void {
    const behind = this.nowNanoseconds / NANOSECONDS_PER_CYCLE - this.cyclesOf(index);
    if (behind > 0) this.addCycles(index, Math.ceil(behind));
  }

  private addCycles(index: number, cycles: number): void {
    this.otherCycles[index] += cycles;
    this.engine.vcpus[index].setNumber(state.CHARGED, Math.floor(this.otherCycles[index]));
  }

  /** A timer was armed: if it is due before the slice ends, the slice ends then. */
  private deadlineMoved(): void {
    if (this.current < 0) return;
    const deadline = this.queue.deadline / NANOSECONDS_PER_CYCLE;
    if (deadline < this.sliceEnd) this.engine.requestExit(this.engine.vcpus[this.current].base);
  }

  // --- Running ------------------------------------------------------------------------------------

  /** Runs until the budget is used up, the run ends, or (with `realtime`) everything sleeps. Ended runs stay ended. */
  run(budget: RunBudget = {}): RunResult {
    this.catchUp();
    this.running = true;
    let result: RunResult;
    try {
      result = this.advance(budget);
    } finally {
      this.running = false;
    }
    this.serial.flush();
    this.debugConsole.flush();
    return result;
  }

  private advance(budget: RunBudget): RunResult {
    const stopTime = this.frontier() + (budget.guestNanoseconds ?? NEVER);
    const stopInstructions = this.instructions + (budget.instructions ?? NEVER);
    try {
      while (!this.ended) {
        const time = this.interrupted >= 0 ? this.cyclesOf(this.interrupted) * NANOSECONDS_PER_CYCLE : this.frontier();
        if (time >= stopTime || (budget.instructions !== undefined && this.instructions >= stopInstructions)) return { kind: 'budget' };
        const deadline = this.queue.deadline;
        // A slice that the budget cut short goes on first: budgets must not change what happens.
        const next = this.interrupted >= 0 ? this.interrupted : this.lagging();
        if (next < 0) {
          if (deadline === NEVER && !this.realtime) {
            this.end('hung', 'every vCPU is halted and nothing can wake one');
            break;
          }
          if (this.realtime && deadline > this.allowedUntil) return { kind: 'idle', untilNanoseconds: deadline };
          this.fireAt(deadline);
        } else if (this.interrupted < 0 && deadline <= this.cyclesOf(next) * NANOSECONDS_PER_CYCLE) this.fireAt(deadline);
        else this.slice(next, deadline, stopTime, budget.instructions === undefined ? MAX_SLICE : stopInstructions - this.instructions);
      }
    } catch (error) {
      if (!(error instanceof EmulationFailure)) throw error;
      this.end('emulation-failure', `${error.message}\n${this.stateReport()}`);
    }
    return this.ended as RunResult;
  }

  /** In `advance`. */
  private running = false;
  /** Serial input that came since the last run. */
  private readonly input: Uint8Array[] = [];

  /** Input that comes between runs waits for the next one: the guest's clocks are not there yet. */
  private receive(bytes: Uint8Array): void {
    if (this.running) this.devices.uart.receive(bytes);
    else this.input.push(bytes.slice());
  }

  /** What happened since the last run: with `realtime`, a guest that sleeps has slept on. Then its input is there. */
  private catchUp(): void {
    if (this.realtime && this.lagging() < 0) this.idleNow = Math.max(this.idleNow, Math.min(this.allowedUntil, this.queue.deadline));
    for (const bytes of this.input.splice(0)) this.devices.uart.receive(bytes);
  }

  /** With `realtime`: guest time up to which sleeping may be skipped; the caller moves it along with the host's clock. */
  allowedUntil = 0;

  /** vCPU whose slice the caller's budget cut short, or -1; it goes on until `sliceEnd`. */
  private interrupted = -1;

  private slice(index: number, deadline: number, stopTime: number, instructions: number): void {
    const vcpu = this.engine.vcpus[index];
    const start = this.cyclesOf(index);
    if (this.interrupted < 0) {
      let end = Math.min(deadline / NANOSECONDS_PER_CYCLE, start + MAX_SLICE);
      for (const other of this.engine.vcpus) {
        if (other.index !== index && other.activity === Activity.running) end = Math.min(end, this.cyclesOf(other.index) + QUANTUM_CYCLES);
      }
      this.sliceEnd = Math.ceil(end);
    }
    const whole = Math.max(1, Math.ceil(this.sliceEnd - start));
    const allowed = Math.max(1, Math.min(Math.ceil(stopTime / NANOSECONDS_PER_CYCLE - start), instructions));
    this.current = index;
    this.tracer.vcpu = index;
    try {
      const finished = this.engine.run(vcpu, Math.min(whole, allowed));
      this.interrupted = finished && this.cyclesOf(index) < this.sliceEnd && vcpu.activity === Activity.running ? index : -1;
    } finally {
      this.idleNow = this.nowNanoseconds;
      this.current = -1;
    }
    if (vcpu.activity === Activity.shutdown) {
      this.cpus[index].exit(Exit.tripleFault, 0, 0, 'userspace', () => {});
      this.end('triple-fault', `vCPU ${index} shut down: a fault occurred while a double fault was being delivered\n${this.stateReport()}`);
    }
  }

  /** Lets the earliest timer fire, at its own time. */
  private fireAt(deadline: number): void {
    this.idleNow = deadline;
    this.queue.fire();
  }

  /** The running vCPU whose clock is lowest, -1 where none runs. */
  private lagging(): number {
    let found = -1;
    let lowest = NEVER;
    for (const vcpu of this.engine.vcpus) {
      if (vcpu.activity !== Activity.running) continue;
      const cycles = this.cyclesOf(vcpu.index);
      if (cycles < lowest) {
        lowest = cycles;
        found = vcpu.index;
      }
    }
    return found;
  }

  /** How far the machine has got, in nanoseconds: the lagging vCPU's time, or while all sleep that of the last event. */
  private frontier(): number {
    const next = this.lagging();
    return next < 0 ? this.idleNow : this.cyclesOf(next) * NANOSECONDS_PER_CYCLE;
  }

  private end(end: Exclude<RunEnd, 'debug-exit'>, report: string): void {
    this.finish({ kind: 'ended', end, exitStatus: EXIT_STATUS[end], report });
  }

  private finish(result: RunResult): void {
    this.ended ??= result;
    if (this.current >= 0) this.engine.requestExit(this.engine.vcpus[this.current].base);
  }

  private watchForPanic(): void {
    let line = '';
    this.serial.onByte = (byte) => {
      if (byte !== 10) {
        if (line.length < 256) line += String.fromCharCode(byte);
        return;
      }
      if (line.includes(PANIC_TEXT)) this.panicked = true;
      if (this.panicked && line.includes(PANIC_END)) this.end('panic', line.slice(line.indexOf(PANIC_END)).trim());
      line = '';
    };
  }

  // --- What can be seen ---------------------------------------------------------------------------

  /** All counters up to now. Looking changes nothing: an interrupt whose end waits to be noticed in PV EOI's word counts as in service. */
  counters(): CountersSnapshot {
    return this.counting.snapshot((index) => ({
      instructions: this.engine.retired(this.engine.vcpus[index]),
      inIrr: this.cpus[index].bits(ApicRegister.irr),
      inIsr: this.cpus[index].bits(ApicRegister.isr),
    }));
  }

  /** Each vCPU's clock in cycles: instructions, charged exits and sleep. */
  get vcpuCycles(): number[] {
    return this.engine.vcpus.map((vcpu) => this.cyclesOf(vcpu.index));
  }

  /**
   * Traces what runs from `points` on to the return from there (call-tracer.ts), from now on; not while `run` does. The pages at the points
   * and at the addresses `alsoIn` are interpreted; the run stays the same run.
   */
  traceCalls(points: readonly TracePoint[], alsoIn: readonly number[] = []): CallTracer {
    const host = {
      engine: this.engine,
      exitCount: (vcpu: number, reason?: number) => this.counting.exitCount(vcpu, reason),
      cyclesOf: (vcpu: number) => this.cyclesOf(vcpu),
    };
    this.callTracer = new CallTracer(host, points, alsoIn);
    this.engine.watch(this.callTracer);
    return this.callTracer;
  }

  /** What the JIT did; undefined where it is off. */
  jitReport(): JitReport | undefined {
    return this.engine.jit?.statistics.report(this.engine.cache.flushes, this.instructions);
  }

  /** Regions compiled so far that have an instruction at this guest-virtual address, if counting (`jitClock`). */
  regionsAt(address: bigint): RegionRecord[] {
    const covers = ({ blocks }: RegionRecord): boolean => blocks.some((block) => address >= block.address && address < block.address + BigInt(block.bytes.length));
    return (this.engine.jit?.statistics.records ?? []).filter(covers);
  }

  /** The vCPUs' registers, readable. */
  stateReport(): string {
    return this.engine.vcpus.map((vcpu) => stateReport(vcpu)).join('\n');
  }

  /** Ends the run and lets go of listeners. The memory goes with the object. */
  dispose(): void {
    this.ended ??= { kind: 'ended', end: 'hung', exitStatus: EXIT_STATUS.hung, report: 'the machine was disposed of' };
    this.serial.dispose();
    this.debugConsole.dispose();
  }

  // --- The engine's environment -------------------------------------------------------------------

  private environment(model: CpuModel): Environment {
    const cpuOf = (vcpu: Vcpu): VirtualCpu => this.cpus[vcpu.index];
    const completedBy = (kernel: boolean) => (kernel ? 'kernel' : 'userspace');
    return {
      model,
      portRead: (vcpu, port, bytes) =>
        cpuOf(vcpu).exit(Exit.io, exitDetail.io(port, bytes, true), 0, completedBy(isKernelPort(port)), () => {
          const value = this.devices.ports.read(port, bytes);
          if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_pio', rw: 'read', port, size: bytes, count: 1, val: value });
          return value;
        }),
      portWrite: (vcpu, port, bytes, value) =>
        cpuOf(vcpu).exit(Exit.io, exitDetail.io(port, bytes, false), 0, completedBy(isKernelPort(port)), () => {
          if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_pio', rw: 'write', port, size: bytes, count: 1, val: value });
          this.devices.ports.write(port, bytes, value);
        }),
      mmioRead: (vcpu, guestPhysical, bytes) => this.mmioRead(cpuOf(vcpu), guestPhysical, bytes),
      mmioWrite: (vcpu, guestPhysical, bytes, value) => this.mmioWrite(cpuOf(vcpu), guestPhysical, bytes, value),
      cpuid: (vcpu, leaf, subleaf) =>
        cpuOf(vcpu).exit(Exit.cpuid, 0, 0, 'kernel', () =>
          cpuid(vcpu, leaf >>> 0, subleaf >>> 0, {
            vcpuCount: this.cpus.length,
            apicId: cpuOf(vcpu).apic.initialId,
            x2apic: this.x2apic,
            tscDeadline: true,
            hypervisorPresent: this.kvmFeatures.present,
            apicEnabled: cpuOf(vcpu).apic.mode !== 'disabled',
            hypervisorLeaf: (wanted) => kvmCpuid(this.kvmFeatures, wanted),
          }),
        ),
      readMsr: (vcpu, msr) => this.readMsr(cpuOf(vcpu), msr),
      writeMsr: (vcpu, msr, value) => this.writeMsr(cpuOf(vcpu), msr, value),
      readTaskPriority: (vcpu) => cpuOf(vcpu).apic.cr8,
      writeTaskPriority: (vcpu, value) => {
        const cpu = cpuOf(vcpu);
        const pending = cpu.apic.hasPendingIrr() ? cpu.apic.highestRequested() >> 4 : -1;
        const write = (): void => cpu.apic.writeCr8(value);
        if (cr8WriteExits(this.accounting.isa, cpu.apic.cr8, value, pending)) cpu.exit(Exit.cr8Write, 0, 0, 'kernel', write);
        else write();
      },
      controlRegisterWritten: (vcpu, register, changed) => {
        if (controlRegisterWriteExits(this.accounting.isa, register, changed)) cpuOf(vcpu).exit(Exit.crAccess, exitDetail.controlRegister(register, false), 0, 'kernel', () => {});
      },
      hypercall: (vcpu, longMode) => this.hypercall(cpuOf(vcpu), longMode),
      halt: (vcpu) => cpuOf(vcpu).halt(),
      intercepted: (vcpu, what, detail) => this.intercepted(cpuOf(vcpu), what, detail),
      random: () => this.random.next64(),
      deliverEvent: (vcpu) => {
        const interrupted = this.callTracer?.beforeEvent(vcpu);
        const delivered = cpuOf(vcpu).deliverEvents();
        if (delivered) interrupted?.();
        return delivered;
      },
    };
  }

  /** What is counted and charged, and then goes on as if nothing had been. */
  private intercepted(cpu: VirtualCpu, what: Intercept, detail: number): void {
    const { isa } = this.accounting;
    const exit = (reason: number, information = 0): void => cpu.exit(reason, information, 0, 'kernel', () => {});
    switch (what) {
      case 'wbinvd': return exit(Exit.wbinvd);
      case 'invd': return exit(Exit.invd);
      case 'xsetbv': return exit(Exit.xsetbv);
      case 'rdpmc': return exit(Exit.rdpmc);
      case 'cr-read': return controlRegisterReadExits(isa, detail) ? exit(Exit.crAccess, exitDetail.controlRegister(detail, true)) : undefined;
      case 'dr-read': return cpu.accessDebugRegister(detail, true);
      case 'dr-write': return cpu.accessDebugRegister(detail, false);
      case 'exception': return exceptionExits(isa, detail) ? exit(Exit.exception, detail) : undefined;
    }
  }

  private apicOffset(cpu: VirtualCpu, guestPhysical: number): number {
    const { apic } = cpu;
    const offset = guestPhysical - apic.baseAddress;
    return apic.mode === 'xapic' && offset >= 0 && offset < 4096 ? offset : -1;
  }

  private mmioRead(cpu: VirtualCpu, guestPhysical: number, bytes: AccessBytes): number {
    const offset = this.apicOffset(cpu, guestPhysical);
    if (offset < 0) {
      return cpu.exit(Exit.mmio, exitDetail.memory(false), guestPhysical, isKernelMmio(guestPhysical) ? 'kernel' : 'userspace', () => {
        const value = this.devices.mmio.read(guestPhysical, bytes);
        if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_mmio', type: 'read', len: bytes, gpa: guestPhysical, val: BigInt(value) });
        return value;
      });
    }
    const read = (): number => {
      const word = cpu.apic.readMmio(offset & ~3);
      if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_apic', rw: 'read', reg: offset & ~3, val: BigInt(word) });
      const value = word >>> (8 * (offset & 3));
      return bytes === 4 ? value : value & (bytes === 2 ? 0xffff : 0xff);
    };
    if (!apicAccessExits(this.accounting.isa, offset)) return read();
    return cpu.exit(Exit.apicAccess, exitDetail.apic(offset, false), guestPhysical, 'kernel', read);
  }

  private mmioWrite(cpu: VirtualCpu, guestPhysical: number, bytes: AccessBytes, value: number): void {
    const offset = this.apicOffset(cpu, guestPhysical);
    if (offset < 0) {
      return cpu.exit(Exit.mmio, exitDetail.memory(true), guestPhysical, isKernelMmio(guestPhysical) ? 'kernel' : 'userspace', () => {
        if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_mmio', type: 'write', len: bytes, gpa: guestPhysical, val: BigInt(value) });
        this.devices.mmio.write(guestPhysical, bytes, value);
      });
    }
    const write = (): void => {
      if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_apic', rw: 'write', reg: offset, val: BigInt(value) });
      cpu.performApicEffect(cpu.apic.writeMmio(offset, value), offset);
    };
    if (!apicAccessExits(this.accounting.isa, offset)) return write();
    cpu.exit(Exit.apicAccess, exitDetail.apic(offset, true), guestPhysical, 'kernel', write);
  }

  private readMsr(cpu: VirtualCpu, msr: number): bigint | undefined {
    const read = (): bigint | undefined => {
      const value = this.msrValue(cpu, msr);
      if (this.tracer.enabled && msrExits(this.accounting.isa, msr, false)) this.tracer.emit({ name: 'kvm_msr', write: false, ecx: msr, data: value ?? 0n, exception: value === undefined });
      return value;
    };
    return msrExits(this.accounting.isa, msr, false) ? cpu.exit(Exit.msrRead, 0, 0, 'kernel', read) : read();
  }

  private msrValue(cpu: VirtualCpu, msr: number): bigint | undefined {
    const own = readCpuMsr(cpu.vcpu, msr);
    if (own !== undefined) return own;
    if (msr === Msr.tsc) return this.tscOf(cpu.vcpu);
    if (msr === Msr.tscAdjust) return cpu.vcpu.model.features.has('tsc_adjust') ? cpu.vcpu.get64(state.TSC_OFFSET) : undefined;
    if (isApicMsr(msr)) {
      const value = cpu.apic.readMsr(msr);
      if (value === 'gp') return undefined;
      if (this.tracer.enabled && msr >= Msr.x2apic && msr <= Msr.x2apicEnd) this.tracer.emit({ name: 'kvm_apic', rw: 'read', reg: (msr - Msr.x2apic) << 4, val: join(value) });
      return join(value);
    }
    if (isKvmMsr(msr)) {
      const value = cpu.kvm.readMsr(msr);
      return value && join(value);
    }
    return cpu.inertMsrs.read(msr);
  }

  private writeMsr(cpu: VirtualCpu, msr: number, value: bigint): boolean {
    const write = (): boolean => {
      const done = this.setMsr(cpu, msr, value);
      if (this.tracer.enabled && msrExits(this.accounting.isa, msr, true)) this.tracer.emit({ name: 'kvm_msr', write: true, ecx: msr, data: value, exception: !done });
      return done;
    };
    return msrExits(this.accounting.isa, msr, true) ? cpu.exit(Exit.msrWrite, 0, 0, 'kernel', write) : write();
  }

  private setMsr(cpu: VirtualCpu, msr: number, value: bigint): boolean {
    const { vcpu, apic } = cpu;
    const result = writeCpuMsr(vcpu, msr, value);
    if (result !== 'unknown') return result === 'done';
    if (msr === Msr.tscAdjust && !vcpu.model.features.has('tsc_adjust')) return false;
    if (msr === Msr.tsc || msr === Msr.tscAdjust) {
      const adjust = vcpu.get64(state.TSC_OFFSET);
      vcpu.set64(state.TSC_OFFSET, msr === Msr.tsc ? adjust + value - this.tscOf(vcpu) : value);
      apic.tscChanged();
      cpu.kvm.clock.update();
      return true;
    }
    const low = Number(value & 0xffff_ffffn);
    const high = Number(value >> 32n);
    if (isApicMsr(msr)) {
      const offset = msr >= Msr.x2apic && msr <= Msr.x2apicEnd ? (msr - Msr.x2apic) << 4 : -1;
      if (this.tracer.enabled && offset >= 0) this.tracer.emit({ name: 'kvm_apic', rw: 'write', reg: offset, val: value });
      const held = msr === Msr.apicBase ? { inIrr: cpu.bits(ApicRegister.irr), inIsr: cpu.bits(ApicRegister.isr) } : undefined;
      const effect = apic.writeMsr(msr, low, high);
      if (effect === 'gp') return false;
      if (held && apic.mode === 'disabled') this.counting.discarded(cpu.index, held.inIrr, held.inIsr);
      cpu.performApicEffect(effect, offset);
      return true;
    }
    if (isKvmMsr(msr)) return cpu.kvm.writeMsr(msr, low, high);
    return cpu.inertMsrs.write(msr, value);
  }

  private hypercall(cpu: VirtualCpu, longMode: boolean): void {
    const { vcpu } = cpu;
    cpu.exit(Exit.hypercall, 0, 0, 'kernel', () => {
      const registers = { rax: vcpu.get64(state.RAX), rbx: vcpu.get64(state.RBX), rcx: vcpu.get64(state.RCX), rdx: vcpu.get64(state.RDX), rsi: vcpu.get64(state.RSI) };
      const { rax: nr, rbx: a0, rcx: a1, rdx: a2, rsi: a3 } = registers;
      if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_hypercall', nr, a0, a1, a2, a3 });
      const target = (apicId: number): VirtualCpu | undefined => this.cpus.find((other) => other.apic.initialId === apicId);
      const result = hypercall({
        registers,
        cpl: vcpu.cpl,
        is64Bit: longMode,
        kvm: this.kvmFeatures,
        host: {
          kick: (apicId) => target(apicId)?.kickFromHypercall(),
          // Every vCPU has a host CPU of its own here: none is ever preempted.
          yieldTo: () => {},
          deliver: (apicId, message) => {
            const other = target(apicId);
            return other?.apic.isEnabled() === true && other.apic.accept(message) !== 'ignored';
          },
        },
      });
      vcpu.set64(state.RAX, result);
      this.engine.requestExit(vcpu.base);
    });
  }
}

const join = ({ low, high }: { low: number; high: number }): bigint => BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
const isApicMsr = (msr: number): boolean => msr === Msr.apicBase || msr === Msr.tscDeadline || (msr >= Msr.x2apic && msr <= Msr.x2apicEnd);

/** Puts the boot CPU into the state a boot protocol enters a kernel with. */
function enterBootState(vcpu: Vcpu, boot: BootState): void {
  const segment = ({ base, limit, attributes }: BootSegment) => ({ base: BigInt(base), limit, attributes });
  vcpu.set64(state.CR0, BigInt(boot.cr0));
  vcpu.set64(state.CR3, BigInt(boot.cr3));
  vcpu.set64(state.CR4, BigInt(boot.cr4));
  vcpu.set64(state.EFER, BigInt(boot.efer));
  vcpu.set64(state.GDTR_BASE, BigInt(boot.gdt.base));
  vcpu.set32(state.GDTR_LIMIT, boot.gdt.limit);
  vcpu.set64(state.IDTR_BASE, BigInt(boot.idt.base));
  vcpu.set32(state.IDTR_LIMIT, boot.idt.limit);
  const order = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;
  for (const [number, name] of order.entries()) setSegment(vcpu, number, boot.segments[name].selector, segment(boot.segments[name]));
  for (let number = 0; number < 16; number++) vcpu.setRegister(number, 0n);
  vcpu.set64(state.RAX, BigInt(boot.registers.rax ?? 0));
  vcpu.set64(state.RBX, BigInt(boot.registers.rbx ?? 0));
  vcpu.set64(state.RSI, BigInt(boot.registers.rsi ?? 0));
  vcpu.set64(state.RSP, BigInt(boot.registers.rsp ?? 0));
  vcpu.rip = BigInt(boot.rip);
  vcpu.rflags = BigInt(boot.rflags);
  setCpl(vcpu, 0);
  vcpu.mmu.flushAll(vcpu.base);
}
