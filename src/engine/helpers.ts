/**
 * The vCPU's TypeScript half: what instruction definitions call by name (`x.helper('rdmsr')`). Each gets the vCPU's base and the
 * definition's i32 arguments; wider values pass through the ARGUMENT slots. A guest's mistake is thrown as a fault.
 */

import * as cr from '../cpu/control-registers.ts';
import { Access } from '../cpu/mmu.ts';
import * as far from '../cpu/far-transfers.ts';
import * as segments from '../cpu/segments.ts';
import * as state from '../cpu/state.ts';
import * as virtual8086 from '../cpu/virtual-8086.ts';
import { Cr4, Efer, Flag, generalProtection, undefinedOpcode, type Vcpu } from '../cpu/vcpu.ts';
import type { AccessBytes } from '../memory/bus.ts';
import type { Engine } from './engine.ts';
import type { Environment } from './environment.ts';
import { floatingPointHelpers } from './floating-point-helpers.ts';
import type { Helpers } from './interpreter.ts';
import * as L from './layout.ts';

const TSS_IO_MAP = 0x66n;
const LOW32 = 0xffff_ffffn;

export function createHelpers(engine: Engine, environment: Environment): Helpers {
  const at = (base: number): Vcpu => engine.vcpuAt(base);

  const setEdxEax = (vcpu: Vcpu, value: bigint): void => {
    vcpu.set64(state.RAX, value & LOW32);
    vcpu.set64(state.RDX, (value >> 32n) & LOW32);
  };
  const edxEax = (vcpu: Vcpu): bigint => BigInt(vcpu.get32(state.RAX)) | (BigInt(vcpu.get32(state.RDX)) << 32n);

  /** I/O is allowed by IOPL, or port by port by the TSS's bit map. SDM 1 19.5. */
  const checkPort = (vcpu: Vcpu, port: number, bytes: number): void => {
    if (!vcpu.protectedMode) return;
    const iopl = (vcpu.get32(state.RFLAGS) >> 12) & 3;
    if (vcpu.cpl <= iopl && !vcpu.virtual8086) return;
    const limit = vcpu.get32(state.TR + state.SEGMENT_LIMIT);
    const tss = vcpu.get64(state.TR + state.SEGMENT_BASE);
    if (limit < 0x67) generalProtection();
    const map = Number(vcpu.read(tss + TSS_IO_MAP, 2, Access.implicit)) + (port >> 3);
    if (map + 1 > limit) generalProtection();
    const allowed = Number(vcpu.read(tss + BigInt(map), 2, Access.implicit)) >> (port & 7);
    if (allowed & ((1 << bytes) - 1)) generalProtection();
  };

  const helpers = {
    // --- Ports, halting, time
    check_port: (base: number, port: number, bytes: number): void => checkPort(at(base), port, bytes),
    pio_in: (base: number, port: number, bytes: number): number => {
      const vcpu = at(base);
      checkPort(vcpu, port, bytes);
      engine.portAccess(vcpu, port, bytes);
      return environment.portRead(vcpu, port, bytes as AccessBytes);
    },
    pio_out: (base: number, port: number, bytes: number, value: number): void => {
      const vcpu = at(base);
      checkPort(vcpu, port, bytes);
      engine.portAccess(vcpu, port, bytes);
      environment.portWrite(vcpu, port, bytes as AccessBytes, bytes === 4 ? value >>> 0 : value & (bytes === 2 ? 0xffff : 0xff));
    },
    halt: (base: number): void => environment.halt(at(base)),
    rdpmc: (base: number): void => {
      environment.intercepted(at(base), 'rdpmc', 0);
      generalProtection();
    },
    random: (base: number): void => at(base).setArgument(0, environment.random()),
    cpuid: (base: number): void => {
      const vcpu = at(base);
      const result = environment.cpuid(vcpu, vcpu.get32(state.RAX), vcpu.get32(state.RCX));
      vcpu.set64(state.RAX, BigInt(result.eax >>> 0));
      vcpu.set64(state.RBX, BigInt(result.ebx >>> 0));
      vcpu.set64(state.RCX, BigInt(result.ecx >>> 0));
      vcpu.set64(state.RDX, BigInt(result.edx >>> 0));
    },
    rdmsr: (base: number): void => {
      const vcpu = at(base);
      setEdxEax(vcpu, environment.readMsr(vcpu, vcpu.get32(state.RCX)) ?? generalProtection());
    },
    wrmsr: (base: number): void => {
      const vcpu = at(base);
      if (!environment.writeMsr(vcpu, vcpu.get32(state.RCX), edxEax(vcpu))) generalProtection();
    },
    hypercall: (base: number, longMode: number): void => environment.hypercall(at(base), longMode !== 0),
    wbinvd: (base: number): void => environment.intercepted(at(base), 'wbinvd', 0),
    invd: (base: number): void => environment.intercepted(at(base), 'invd', 0),

    // --- Control registers and translation
    read_cr: (base: number, number: number): void => {
      const vcpu = at(base);
      environment.intercepted(vcpu, 'cr-read', number);
      vcpu.setArgument(0, cr.readCr(vcpu, number, { readTaskPriority: () => environment.readTaskPriority(vcpu), writeTaskPriority: () => {} }));
    },
    write_cr: (base: number, number: number): void => {
      const vcpu = at(base);
      const slot = number === 0 ? state.CR0 : state.CR4;
      const old = vcpu.get64(slot);
      cr.writeCr(vcpu, number, vcpu.argument(0), { readTaskPriority: () => 0, writeTaskPriority: (value) => environment.writeTaskPriority(vcpu, value) });
      if (number === 0 || number === 4) environment.controlRegisterWritten(vcpu, number, old ^ vcpu.get64(slot));
    },
    /** MOV CR3 in 64-bit mode. */
    write_cr3: (base: number): void => {
      const vcpu = at(base);
      cr.writeLongModeCr3(vcpu, vcpu.get32(state.ARGUMENT), vcpu.get32(state.ARGUMENT + 4));
    },
    read_dr: (base: number, number: number): void => {
      environment.intercepted(at(base), 'dr-read', number);
      at(base).setArgument(0, cr.readDr(at(base), number));
    },
    write_dr: (base: number, number: number): void => {
      const value = at(base).argument(0);
      environment.intercepted(at(base), 'dr-write', number);
      cr.writeDr(at(base), number, value);
    },
    lmsw: (base: number): void => cr.lmsw(at(base), at(base).argument(0)),
    xsetbv: (base: number): void => {
      const vcpu = at(base);
      if (vcpu.cpl === 0 && vcpu.get64(state.CR4) & Cr4.osxsave) environment.intercepted(vcpu, 'xsetbv', 0);
      cr.xsetbv(vcpu);
    },
    invlpg: (base: number): void => engine.flushPage(base, at(base).argument(0)),
    invpcid: (base: number): void => {
      const vcpu = at(base);
      const [type, low, address] = [vcpu.argument(0), vcpu.argument(1), vcpu.argument(2)];
      const pcid = Number(low & 0xfffn);
      if (type > 3n || low >> 12n) generalProtection();
      if (type <= 1n && pcid !== 0 && !(vcpu.get64(state.CR4) & Cr4.pcide)) generalProtection();
      if (type === 0n && !vcpu.isCanonical(address)) generalProtection();
      if (type === 0n) engine.flushPcid(base, pcid, address);
      else if (type === 1n) engine.flushPcid(base, pcid);
      else engine.flushAll(base);
    },

    // --- Flags and interrupts
    popf: (base: number, bits: number): void => {
      const vcpu = at(base);
      const value = vcpu.argument(0);
      if (vcpu.protectedMode && vcpu.virtual8086 && virtual8086.ioPrivilege(vcpu.get64(state.RFLAGS)) !== 3) return virtual8086.setVirtualFlags(vcpu, value, bits);
      const mask = far.writableFlags(vcpu, vcpu.cpl, bits) & ~Flag.resume;
      const old = vcpu.rflags;
      vcpu.rflags = (old & ~mask & ~Flag.resume) | (value & mask);
    },
    /** CLI and STI that IOPL forbids; PUSHF of a virtual-8086 task below IOPL 3. */
    set_virtual_interrupt_flag: (base: number, enabled: number): void => virtual8086.setVirtualInterruptFlag(at(base), enabled !== 0),
    virtual_flags: (base: number, bits: number): void => at(base).setArgument(0, virtual8086.pushedVirtualFlags(at(base), bits)),
    /** INT n and its like; the IP to return to is in argument 0. `type` is VMX's: 4 INT n, 5 INT1, whose gate's DPL does not matter, 6 INT3 and INTO. */
    interrupt: (base: number, vector: number, type: number): void => {
      const vcpu = at(base);
      const restart = engine.currentIp(vcpu);
      vcpu.rip = vcpu.argument(0);
      vcpu.set32(state.CURRENT_OP, 0);
      engine.softwareInterrupt(vcpu, vector, type === 5 ? 'trap' : type === 4 ? 'software' : 'software-exception', restart);
    },
    iret: (base: number, bits: number): void => far.interruptReturn(at(base), bits, engine.nextIp(at(base))),

    // --- Far transfers and segments
    far_jump_immediate: (base: number, bits: number): void => {
      const vcpu = at(base);
      far.farJump(vcpu, engine.operationWord(vcpu, L.OP_REGISTER + 12), vcpu.argument(0) & (bits === 16 ? 0xffffn : LOW32), engine.nextIp(vcpu));
    },
    far_call_immediate: (base: number, bits: number): void => {
      const vcpu = at(base);
      far.farCall(vcpu, engine.operationWord(vcpu, L.OP_REGISTER + 12), vcpu.argument(0) & (bits === 16 ? 0xffffn : LOW32), bits, engine.nextIp(vcpu));
    },
    far_jump: (base: number, _bits: number): void => {
      const vcpu = at(base);
      far.farJump(vcpu, Number(vcpu.argument(1)), vcpu.argument(0), engine.nextIp(vcpu));
    },
    far_call: (base: number, bits: number): void => {
      const vcpu = at(base);
      far.farCall(vcpu, Number(vcpu.argument(1)), vcpu.argument(0), bits, engine.nextIp(vcpu));
    },
    far_return: (base: number, bits: number, release: number): void => far.farReturn(at(base), bits, release),
    load_segment: (base: number, segment: number): void => {
      const vcpu = at(base);
      segments.loadDataSegment(vcpu, segment, Number(vcpu.argument(0)));
      if (segment === segments.SS) vcpu.set32(state.INTERRUPT_SHADOW, 1);
    },
    lldt: (base: number): void => segments.loadLdtr(at(base), Number(at(base).argument(0))),
    ltr: (base: number): void => segments.loadTr(at(base), Number(at(base).argument(0))),
    verr: (base: number): number => (segments.verify(at(base), Number(at(base).argument(0)), false) ? 1 : 0),
    verw: (base: number): number => (segments.verify(at(base), Number(at(base).argument(0)), true) ? 1 : 0),
    lar: (base: number): number => {
      const vcpu = at(base);
      const found = segments.visibleDescriptor(vcpu, Number(vcpu.argument(0)), 'lar');
      // AMD's processors keep the limit's upper bits, which Intel's manual leaves undefined.
      if (found) vcpu.setArgument(0, (found.raw >> 32n) & 0xff_ff00n);
      return found ? 1 : 0;
    },
    lsl: (base: number): number => {
      const vcpu = at(base);
      const found = segments.visibleDescriptor(vcpu, Number(vcpu.argument(0)), 'lsl');
      if (found) vcpu.setArgument(0, BigInt(found.limit >>> 0));
      return found ? 1 : 0;
    },
    mode_changed: (base: number): void => segments.updateSegments(at(base)),
    /** SYSCALL of compatibility mode, to CSTAR, and of protected mode, to STAR's lower half (APM 3, SYSCALL). */
    syscall_legacy: (base: number): void => {
      const vcpu = at(base);
      if (!(vcpu.get64(state.EFER) & Efer.sce) || !vcpu.protectedMode || vcpu.virtual8086) undefinedOpcode();
      const star = vcpu.get64(state.STAR);
      const selector = Number((star >> 32n) & 0xfffcn);
      const { longMode, rflags } = vcpu;
      const next = engine.nextIp(vcpu);
      vcpu.set64(state.RCX, next);
      if (longMode) vcpu.set64(state.R11, rflags & ~Flag.resume);
      const cleared = longMode ? vcpu.get64(state.SFMASK) | Flag.resume : Flag.virtual8086 | Flag.interrupt | Flag.resume;
      vcpu.rflags = rflags & ~cleared;
      segments.setSegment(vcpu, segments.CS, selector, { base: 0n, limit: 0xffff_ffff, attributes: longMode ? 0x00a0_9b00 : 0x00c0_9b00 });
      segments.setCpl(vcpu, 0);
      segments.setSegment(vcpu, segments.SS, selector + 8, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_9300 });
      vcpu.rip = longMode ? vcpu.get64(state.CSTAR) : star & LOW32;
    },
    sysret_legacy: (base: number): void => {
      const vcpu = at(base);
      if (!(vcpu.get64(state.EFER) & Efer.sce) || !vcpu.protectedMode || vcpu.virtual8086) undefinedOpcode();
      if (vcpu.cpl !== 0) generalProtection();
      const selector = Number((vcpu.get64(state.STAR) >> 48n) & 0xfffcn);
      vcpu.rflags = vcpu.longMode ? vcpu.get64(state.R11) & 0x3c_7fd7n : vcpu.rflags | Flag.interrupt;
      segments.setSegment(vcpu, segments.CS, selector | 3, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_fb00 });
      segments.setCpl(vcpu, 3);
      segments.setSegment(vcpu, segments.SS, (selector + 8) | 3, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_f300 });
      vcpu.rip = vcpu.get64(state.RCX) & LOW32;
    },
    sysenter: (base: number, _bits: number): void => {
      const vcpu = at(base);
      const selector = Number(vcpu.get64(state.SYSENTER_CS) & 0xfffcn);
      // AMD processors have no SYSENTER in long mode.
      if (vcpu.longMode) undefinedOpcode();
      if (!vcpu.protectedMode || selector === 0) generalProtection();
      vcpu.rflags = vcpu.rflags & ~(Flag.interrupt | Flag.virtual8086);
      segments.setSegment(vcpu, segments.CS, selector, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_9b00 });
      segments.setCpl(vcpu, 0);
      segments.setSegment(vcpu, segments.SS, selector + 8, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_9300 });
      vcpu.set64(state.RSP, vcpu.get64(state.SYSENTER_ESP) & LOW32);
      vcpu.rip = vcpu.get64(state.SYSENTER_EIP) & LOW32;
    },
    sysexit: (base: number, _bits: number): void => {
      const vcpu = at(base);
      const selector = Number(vcpu.get64(state.SYSENTER_CS) & 0xfffcn);
      if (vcpu.longMode) undefinedOpcode();
      if (!vcpu.protectedMode || selector === 0 || vcpu.cpl !== 0) generalProtection();
      segments.setSegment(vcpu, segments.CS, (selector + 16) | 3, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_fb00 });
      segments.setCpl(vcpu, 3);
      segments.setSegment(vcpu, segments.SS, (selector + 24) | 3, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_f300 });
      vcpu.rip = vcpu.get64(state.RDX) & LOW32;
      vcpu.set64(state.RSP, vcpu.get64(state.RCX) & LOW32);
    },

    ...floatingPointHelpers(engine),
  };
  return helpers;
}
