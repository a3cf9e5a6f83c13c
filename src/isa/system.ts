/**
 * System instructions: privileged state, MSRs, ports, mode switches, far transfers. SDM 2, APM 3 chapter 4. What is hot
 * in a kernel (SYSCALL, SYSRET, SWAPGS, CLI, STI, STAC, CLAC, FS and GS bases) is generated code; the rest
 * calls the vCPU's TypeScript half by name (engine/helpers.ts).
 */

import * as state from '../cpu/state.ts';
import { apply, type Expression, i32, i64, select } from '../wasm/expression.ts';
import { isCanonical } from './canonical.ts';
import { attributesOf, baseOf, dplOf, isCode64, isInGdt, isPlainData, limitOf } from './descriptor.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';

const UNDEFINED_OPCODE = 6;
const TF = 1 << 8;
const IF = 1 << 9;
const NT = 1 << 14;
const VM = 1 << 17;
/** Attributes of a conforming code segment. */
const CONFORMING = (1 << 10) | (1 << 11) | (1 << 12);
const AC = 1 << 18;
const CR4_TSD = 1 << 2;
const CR4_UMIP = 1 << 11;
const RF = 1 << 16;
/** Attributes of the flat segments that SYSCALL and SYSRET load: present code (64-bit) and data. */
const CODE64 = 0x00a0_9b00;
const DATA = 0x00c0_9300;
const CODE32 = 0x00c0_9b00;
const DPL3 = 0x6000;
const EFER_SCE = 1;

// --- Interrupt flag and halting ------------------------------------------------------------------

/** Runs `body` where CPL <= IOPL; elsewhere the virtual interrupt flag is meant, or nothing: #GP(0). */
function withIoPrivilege(x: Semantics, enables: boolean, body: () => void): void {
  const iopl = x.state32(state.RFLAGS).shrU(12).and(3);
  x.f.if(x.state32(state.CPL).gtU(iopl), () => void x.helper('set_virtual_interrupt_flag', i32(enables ? 1 : 0)), body);
}

instruction('CLI', 'FA', {}, (x) => {
  withIoPrivilege(x, false, () => x.setState64(state.RFLAGS, x.state64(state.RFLAGS).and(~IF)));
});

instruction('STI', 'FB', {}, (x) => {
  withIoPrivilege(x, true, () => {
    const flags = x.state64(state.RFLAGS);
    const enabled = x.f.let(flags.or(IF));
    // Something waits: leave, and run one more instruction before it is delivered.
    x.f.if(x.state32(state.EVENT_PENDING).and(flags.and(IF).eqz()), () => {
      if (x.decline()) return;
      x.setState64(state.RFLAGS, enabled);
      x.setState32(state.INTERRUPT_SHADOW, 1);
      x.leave();
    });
    x.setState64(state.RFLAGS, enabled);
  });
});

instruction('HLT', 'F4', { ends: 'block', modal: true }, (x) => {
  x.requirePrivilege();
  x.helper('halt');
  x.leave();
});

// --- Ports ---------------------------------------------------------------------------------------

const portIn = (x: Semantics, target: Operand, port: Expression): void => {
  const bytes = Math.min(target.bits, 32) / 8;
  target.write(x.helper('pio_in', port, i32(bytes)).extendU());
};
const portOut = (x: Semantics, port: Expression, value: Operand): void => {
  x.helper('pio_out', port, i32(Math.min(value.bits, 32) / 8), value.unsigned().wrap());
};
instruction('IN', ['E4 AL Ib', 'EC AL DX'], { access: 'wr' }, (x, target, port) => portIn(x, target, port.unsigned().wrap()));
instruction('IN', ['E5 eAX Ib', 'ED eAX DX'], { access: 'wr' }, (x, _target, port) => portIn(x, x.gpr(0, x.operandBits === 16 ? 16 : 32), port.unsigned().wrap()));
instruction('OUT', ['E6 Ib AL', 'EE DX AL'], {}, (x, port, value) => portOut(x, port.unsigned().wrap(), value));
instruction('OUT', ['E7 Ib eAX', 'EF DX eAX'], {}, (x, port) => portOut(x, port.unsigned().wrap(), x.gpr(0, x.operandBits === 16 ? 16 : 32)));

// --- Control and debug registers -----------------------------------------------------------------

/** #GP(0) where CR4.UMIP keeps user mode from what SGDT and its like tell. */
function mayTellAboutSystem(x: Semantics): void {
  x.f.if(x.state32(state.CR4).and(CR4_UMIP).nonZero().and(x.state32(state.CPL).nonZero()), () => x.raiseWithCode(13, 0));
}

/** #UD in real and virtual-8086 mode, where there are no descriptors. */
function requireDescriptors(x: Semantics): void {
  x.f.if(x.state32(state.CR0).and(1).eqz().or(x.state32(state.RFLAGS).and(VM)), () => x.raise(UNDEFINED_OPCODE));
}

/** 64 bits in 64-bit mode, else 32. */
const fullWidth = (x: Semantics): 64 | 32 => (x.longMode ? 64 : 32);
const general = (x: Semantics, operand: Operand): Expression => (fullWidth(x) === 64 ? operand.unsigned() : operand.unsigned().zeroExtend(32));

/** CR0, CR2, CR3, CR4 and CR8, by bits: the others are no registers, whoever asks. */
const CONTROL_REGISTERS = 0x11d;
const requireControlRegister = (x: Semantics, number: Expression): void => x.f.if(i32(CONTROL_REGISTERS).shrU(number).and(1).eqz(), () => x.raise(UNDEFINED_OPCODE));

for (const [name, letter, read, write] of [
  ['cr', 'C', '20', '22'],
  ['dr', 'D', '21', '23'],
] as const) {
  instruction('MOV', `0F ${read} Rq ${letter}q ; anymod`, { access: 'wr', modal: true }, (x, target, register) => {
    if (name === 'cr') requireControlRegister(x, register.number());
    x.requirePrivilege();
    const number = x.f.let(register.number());
    const value = x.f.local('i64');
    const known = name === 'cr' ? ([[2, state.CR2], [3, state.CR3], [0, state.CR0]] as const) : [];
    x.f.block((done) => {
      for (const [wanted, slot] of known) {
        x.f.if(number.eq(wanted), () => {
          x.f.set(value, x.state64(slot));
          x.f.branch(done);
        });
      }
      x.helper(`read_${name}`, number);
      x.f.set(value, x.argument(0));
    });
    target.write(x.f.let(x.f.get(value)));
  });
  instruction('MOV', `0F ${write} ${letter}q Rq ; anymod`, { access: 'wr', ends: 'block', modal: true }, (x, register, value) => {
    if (name === 'cr') requireControlRegister(x, register.number());
    x.requirePrivilege();
    const number = x.f.let(register.number());
    x.setArgument(0, general(x, value));
    if (name === 'cr' && x.longMode) {
      // A switch of address spaces changes nothing else.
      x.f.if(number.eq(3), () => {
        x.helper('write_cr3');
        x.setState64(state.RIP, x.nextIp());
        x.continueAtRip();
      });
    }
    x.helper(`write_${name}`, number);
    x.leave();
  });
}

instruction('CLTS', '0F 06', { ends: 'block', modal: true }, (x) => {
  x.requirePrivilege();
  x.setState64(state.CR0, x.state64(state.CR0).and(~8));
  x.leave();
});
instruction('SMSW', '0F 01/4 Ev ; reg', { access: 'w' }, (x, target) => {
  mayTellAboutSystem(x);
  target.write(x.state64(state.CR0));
});
instruction('SMSW', '0F 01/4 Ew ; mem', { access: 'w' }, (x, target) => {
  mayTellAboutSystem(x);
  target.write(x.state64(state.CR0));
});
instruction('LMSW', '0F 01/6 Ew', { ends: 'block', modal: true }, (x, source) => {
  x.requirePrivilege();
  x.setArgument(0, source.unsigned());
  x.helper('lmsw');
  x.leave();
});
instruction('XGETBV', 'NP 0F 01 D0', { feature: 'xsave' }, (x) => void x.helper('xgetbv'));
instruction('XSETBV', 'NP 0F 01 D1', { ends: 'block', modal: true, feature: 'xsave' }, (x) => {
  x.helper('xsetbv');
  x.leave();
});

// --- Translation ---------------------------------------------------------------------------------

instruction('INVLPG', '0F 01/7 M ; mem', { ends: 'block', modal: true, unaccessed: true }, (x, address) => {
  x.requirePrivilege();
  const linear = x.dataSegmentBase().add(address.address());
  x.setArgument(0, x.longMode ? linear : linear.zeroExtend(32));
  x.helper('invlpg');
  x.leave();
});
instruction('INVPCID', '66 0F 38 82 Gq Mdq', { ends: 'block', modal: true, feature: 'invpcid' }, (x, type, descriptor) => {
  x.requirePrivilege();
  const address = descriptor.linear();
  const low = x.load(address, 64, 'unsigned');
  const high = x.load(address.add(8), 64, 'unsigned');
  x.setArgument(0, general(x, type));
  x.setArgument(1, low);
  x.setArgument(2, high);
  x.helper('invpcid');
  x.leave();
});
for (const [name, encoding] of [['INVD', '0F 08'], ['WBINVD', '0F 09']] as const) {
  instruction(name, encoding, {}, (x) => {
    x.requirePrivilege();
    x.helper(name.toLowerCase());
  });
}

// --- MSRs, time, identification -------------------------------------------------------------------

instruction('RDMSR', '0F 32', {}, (x) => {
  x.requirePrivilege();
  x.helper('rdmsr');
});
instruction('WRMSR', '0F 30', { ends: 'block', modal: true }, (x) => {
  x.requirePrivilege();
  x.helper('wrmsr');
  x.leave();
});
function readTimestamp(x: Semantics): void {
  x.f.if(x.state32(state.CR4).and(CR4_TSD).nonZero().and(x.state32(state.CPL).nonZero()), () => x.raiseWithCode(13, 0));
  const now = x.timestamp();
  x.gpr(0, 32).write(now);
  x.gpr(2, 32).write(now.shrU(32));
}
instruction('RDTSC', '0F 31', {}, readTimestamp);
instruction('RDTSCP', '0F 01 F9', { feature: 'rdtscp' }, (x) => {
  readTimestamp(x);
  x.gpr(1, 32).write(x.state64(state.TSC_AUX));
});
instruction('RDPMC', '0F 33', {}, (x) => void x.helper('rdpmc'));
instruction('CPUID', '0F A2', {}, (x) => void x.helper('cpuid'));
instruction('RDPID', ['F3 0F C7/7 Rq ; o64', 'F3 0F C7/7 Rd ; n64'], { access: 'w', feature: 'rdpid' }, (x, target) =>
  target.write(x.state64(state.TSC_AUX)),
);
for (const [name, digit] of [['RDRAND', 6], ['RDSEED', 7]] as const) {
  const encodings = ['NP', '66'].map((prefix) => `${prefix} 0F C7/${digit} Rv`);
  instruction(name, encodings, { access: 'w', feature: name.toLowerCase() }, (x, target) => randomInto(x, target));
}
function randomInto(x: Semantics, target: Operand): void {
  x.helper('random');
  target.write(x.argument(0));
  x.setFlags({ zero: 1, sign: 1, carry: i64(-(2n ** 63n)), overflow: 0 });
}

// --- System calls ----------------------------------------------------------------------------------

function setSegment(x: Semantics, segment: number, selector: Expression, attributes: Expression | number, base: Expression | number = 0, limit: Expression | number = -1): void {
  x.setState64(segment + state.SEGMENT_BASE, base);
  x.setState32(segment + state.SEGMENT_LIMIT, limit);
  x.setState32(segment + state.SEGMENT_SELECTOR, selector);
  x.setState32(segment + state.SEGMENT_ATTRIBUTES, attributes);
}

instruction('SYSCALL', '0F 05 ; o64', { ends: 'block', modal: true }, (x) => {
  x.f.if(x.state32(state.EFER).and(EFER_SCE).eqz(), () => x.raise(UNDEFINED_OPCODE));
  const flags = x.rflags();
  const selector = x.f.let(x.state64(state.STAR).shrU(32).wrap().and(0xfffc));
  x.gpr(1, 64).write(x.nextIp());
  x.gpr(11, 64).write(flags.and(~RF));
  const kept = x.f.let(flags.and(x.state64(state.SFMASK).not()));
  x.setStatusFlags(kept);
  x.setState64(state.RFLAGS, kept.and(~(0x8d5 | RF)).or(2));
  setSegment(x, state.CS, selector, CODE64);
  setSegment(x, state.SS, selector.add(8), DATA);
  x.setState32(state.CPL, 0);
  x.updateTranslation();
  x.goTo(x.state64(state.LSTAR));
});
instruction('SYSCALL', '0F 05 ; n64', { ends: 'block', modal: true }, (x) => {
  // From compatibility mode to CSTAR; legacy mode's form is a helper's too.
  x.helper('syscall_legacy');
  x.continueAtRip();
});

instruction('SYSRET', ['0F 07 ; o64 s64', '0F 07 ; o64 s32', '0F 07 ; o64 s16'], { ends: 'block', modal: true }, (x) => {
  x.f.if(x.state32(state.EFER).and(EFER_SCE).eqz(), () => x.raise(UNDEFINED_OPCODE));
  x.requirePrivilege();
  const flags = x.f.let(x.gpr(11, 64).unsigned().and(0x3c7fd7));
  const selector = x.f.let(x.state64(state.STAR).shrU(48).wrap().and(0xfffc));
  const rip = x.f.let(x.operandBits === 64 ? x.gpr(1, 64).unsigned() : x.gpr(1, 32).unsigned());
  x.setStatusFlags(flags);
  x.setState64(state.RFLAGS, flags.and(~0x8d5).or(2));
  if (x.operandBits === 64) setSegment(x, state.CS, selector.add(16).or(3), CODE64 | DPL3);
  else setSegment(x, state.CS, selector.or(3), CODE32 | DPL3);
  setSegment(x, state.SS, selector.add(8).or(3), DATA | DPL3);
  x.setState32(state.CPL, 3);
  x.updateTranslation();
  x.setState64(state.RIP, rip);
  if (x.operandBits !== 64) {
    x.helper('mode_changed');
    return x.leaveAtRip();
  }
  // Interrupts are likely enabled again now.
  x.f.if(x.state32(state.EVENT_PENDING).or(flags.wrap().and(TF)), () => x.leaveAtRip());
  x.goTo(rip);
});
instruction('SYSRET', '0F 07 ; n64', { ends: 'block', modal: true }, (x) => {
  x.helper('sysret_legacy');
  x.leaveAtRip();
});
for (const [name, encoding] of [['SYSENTER', '0F 34'], ['SYSEXIT', '0F 35']] as const) {
  instruction(name, encoding, { ends: 'block', modal: true }, (x) => {
    x.helper(name.toLowerCase(), i32(x.operandBits));
    x.continueAtRip();
  });
}

instruction('SWAPGS', '0F 01 F8 ; o64', { modal: true }, (x) => {
  x.requirePrivilege();
  const base = x.state64(state.GS + state.SEGMENT_BASE);
  x.setState64(state.GS + state.SEGMENT_BASE, x.state64(state.KERNEL_GS_BASE));
  x.setState64(state.KERNEL_GS_BASE, base);
});

for (const [digit, name, segment, write] of [
  [0, 'RDFSBASE', state.FS, false],
  [1, 'RDGSBASE', state.GS, false],
  [2, 'WRFSBASE', state.FS, true],
  [3, 'WRGSBASE', state.GS, true],
] as const) {
  instruction(name, `F3 0F AE/${digit} Ry ; o64`, { access: write ? 'r' : 'w', modal: true, feature: 'fsgsbase' }, (x, operand) => {
    x.f.if(x.state32(state.CR4).and(1 << 16).eqz(), () => x.raise(UNDEFINED_OPCODE));
    if (!write) return operand.write(x.state64(segment + state.SEGMENT_BASE));
    const base = operand.unsigned();
    x.f.if(isCanonical(base, x.state64(state.BASE_CANONICAL_SHIFT)).eqz(), () => x.raiseWithCode(13, 0));
    x.setState64(segment + state.SEGMENT_BASE, base);
  });
}

for (const [name, encoding, set] of [['CLAC', 'NP 0F 01 CA', false], ['STAC', 'NP 0F 01 CB', true]] as const) {
  instruction(name, encoding, { feature: 'smap' }, (x) => {
    x.f.if(x.state32(state.CPL), () => x.raise(UNDEFINED_OPCODE));
    const flags = x.state64(state.RFLAGS);
    x.setState64(state.RFLAGS, set ? flags.or(AC) : flags.and(~AC));
    x.updateTranslation();
  });
}

// --- Interrupt returns and far transfers -----------------------------------------------------------

/** One encoding for each operand size: instructions without operands that depend on it. */
const sized = (encoding: string): string[] => [16, 32, 64].map((bits) => `${encoding} ; s${bits}`);

/** What IRET may change of RFLAGS at level 0, RF apart. */
const IRET_FLAGS = 0x8d5 | TF | IF | (1 << 10) | (3 << 12) | NT | AC | (1 << 19) | (1 << 20) | (1 << 21);

/**
 * A kernel's IRETQ to 64-bit code of level 0 or 3, everything being as it mostly is. Else nothing has happened yet when it is through,
 * but that NMIs may come again.
 */
function returnWithin64BitCode(x: Semantics): void {
  const { f } = x;
  f.block((otherwise) => {
    const unless = (condition: Expression): void => f.branchIf(otherwise, condition.eqz());
    const gdt = x.state64(state.GDTR_BASE);
    const gdtLimit = x.state32(state.GDTR_LIMIT);
    const descriptorOf = (selector: Expression): Expression => {
      unless(isInGdt(selector, gdtLimit));
      return x.load(gdt.add(selector.and(0xfff8).extendU()), 64, 'unsigned');
    };
    f.branchIf(otherwise, x.state32(state.CPL).or(x.state32(state.RFLAGS).and(NT | AC)).or(x.state32(state.BREAKPOINTS)));
    x.setState32(state.NMI_BLOCKED, 0);
    const frame = x.state64(state.RSP);
    const word = (i: number): Expression => x.load(frame.add(8 * i), 64, 'unsigned');
    const rip = word(0);
    const cs = f.let(word(1).wrap().and(0xffff));
    const flags = f.let(word(2).and(IRET_FLAGS));
    const cpl = f.let(cs.and(3));
    unless(isCanonical(rip, x.state64(state.CANONICAL_SHIFT)).and(cpl.eqz().or(cpl.eq(3))));
    const code = descriptorOf(cs);
    const codeAttributes = f.let(attributesOf(code));
    unless(isCode64(codeAttributes, cpl));
    const rsp = word(3);
    const ss = f.let(word(4).wrap().and(0xffff));
    // A null SS is what a handler that was entered from an outer level runs on.
    const stack = f.local('i64');
    f.set(stack, 0);
    f.if(
      ss.and(0xfffc),
      () => {
        f.set(stack, descriptorOf(ss));
        unless(isPlainData(attributesOf(f.get(stack)), cpl).and(ss.and(3).eq(cpl)));
      },
      () => f.branchIf(otherwise, cpl),
    );
    const stackAttributes = f.let(attributesOf(f.get(stack)));
    setSegment(x, state.CS, cs, codeAttributes, baseOf(code), limitOf(code));
    x.setState32(state.CS + state.SEGMENT_ACCESS, codeAttributes.shrU(9).and(1).mul(state.READABLE));
    const hasStack = f.let(stackAttributes.nonZero());
    setSegment(x, state.SS, ss, stackAttributes, baseOf(f.get(stack)), select(hasStack, limitOf(f.get(stack)), i32(-1)));
    x.setState32(state.SS + state.SEGMENT_ACCESS, hasStack.mul(state.READABLE | state.WRITABLE));
    x.setState64(state.RSP, rsp);
    x.setState32(state.CPL, cpl);
    x.setStatusFlags(flags);
    x.setState64(state.RFLAGS, flags.and(~0x8d5).or(2));
    x.updateTranslation();
    f.if(cpl, () => {
      // The outer level keeps only the data segments it may have.
      for (const segment of [state.ES, state.DS, state.FS, state.GS]) {
        const attributes = x.state32(segment + state.SEGMENT_ATTRIBUTES);
        f.if(dplOf(attributes).ltU(3).and(attributes.and(CONFORMING).ne(CONFORMING)), () => {
          x.setState32(segment + state.SEGMENT_SELECTOR, 0);
          x.setState32(segment + state.SEGMENT_ATTRIBUTES, 0);
          if (segment === state.ES || segment === state.DS) x.setState32(segment + state.SEGMENT_LIMIT, 0);
        });
      }
    });
    x.setState64(state.RIP, rip);
    // An event that waited for interrupts is the run loop's business.
    f.if(x.state32(state.EVENT_PENDING).or(flags.wrap().and(TF)), () => x.leaveAtRip());
    x.goTo(rip);
  });
}

instruction('IRET', sized('CF'), { ends: 'block', modal: true }, (x) => {
  if (x.longMode && x.operandBits === 64) {
    returnWithin64BitCode(x);
    if (x.decline()) return;
  }
  x.helper('iret', i32(x.operandBits));
  // An event that waited for interrupts is the run loop's business, and so is one instruction without breakpoints.
  x.f.if(x.state32(state.EVENT_PENDING).or(x.state32(state.RFLAGS).and(RF)), () => x.leaveAtRip());
  x.continueAtRip();
});

const farSelectorField = (_x: Semantics, operand: Operand): Expression => operand.unsigned();
instruction('JMP far', 'EA Ip ; n64', { ends: 'block', modal: true }, (x, target) => {
  x.setArgument(0, farSelectorField(x, target));
  x.helper('far_jump_immediate', i32(x.operandBits));
  x.continueAtRip();
});
instruction('CALL far', '9A Ip ; n64', { ends: 'block', modal: true }, (x, target) => {
  x.setArgument(0, farSelectorField(x, target));
  x.helper('far_call_immediate', i32(x.operandBits));
  x.continueAtRip();
});
function farPointer(x: Semantics, memory: Operand): void {
  const address = memory.linear();
  const offset = x.load(address, x.operandBits, 'unsigned');
  const selector = x.load(address.add(x.operandBits / 8), 16, 'unsigned');
  x.setArgument(0, offset);
  x.setArgument(1, selector);
}
instruction('JMP far', 'FF/5 Mp ; mem', { ends: 'block', modal: true }, (x, memory) => {
  farPointer(x, memory);
  x.helper('far_jump', i32(x.operandBits));
  x.continueAtRip();
});
instruction('CALL far', 'FF/3 Mp ; mem', { ends: 'block', modal: true }, (x, memory) => {
  farPointer(x, memory);
  x.helper('far_call', i32(x.operandBits));
  x.continueAtRip();
});
instruction('RET far', [...sized('CA Iw'), ...sized('CB')], { ends: 'block', modal: true }, (x, release?: Operand) => {
  x.helper('far_return', i32(x.operandBits), release ? release.unsigned().wrap() : i32(0));
  x.continueAtRip();
});

// --- Segments and descriptor tables ------------------------------------------------------------------

// Operand-sized, so that 66 and REX.W find the same instruction; a selector has 16 bits.
instruction('MOV', '8C Ev Sw ; reg', { access: 'wr' }, (_x, target, segment) => target.write(segment.unsigned()));
instruction('MOV', '8C Ew Sw ; mem', { access: 'wr' }, (_x, target, segment) => target.write(segment.unsigned()));
instruction('MOV', '8E Sw Ew', { access: 'wr', ends: 'block', modal: true }, (x, segment, source) => {
  x.setArgument(0, source.unsigned());
  x.helper('load_segment', segment.number());
  x.leave();
});
for (const [number, opcode] of [[0, '07'], [2, '17'], [3, '1F'], [4, '0F A1'], [5, '0F A9']] as const) {
  instruction('POP', `${opcode} ; ${number < 4 ? 'n64 d64' : 'd64'}`, { ends: 'block', modal: true }, (x) => {
    x.setArgument(0, x.peek(x.operandBits).and(0xffff));
    x.helper('load_segment', i32(number));
    x.dropStack(x.operandBits / 8);
    x.leave();
  });
}
for (const [name, number, encoding] of [
  ['LES', 0, 'C4 Gv Mp ; n64 mem'], ['LDS', 3, 'C5 Gv Mp ; n64 mem'], ['LSS', 2, '0F B2 Gv Mp ; mem'], ['LFS', 4, '0F B4 Gv Mp ; mem'], ['LGS', 5, '0F B5 Gv Mp ; mem'],
] as const) {
  instruction(name, encoding, { access: 'wr', ends: 'block', modal: true }, (x, target, memory) => {
    const address = memory.linear();
    const offset = x.load(address, x.operandBits, 'unsigned');
    x.setArgument(0, x.load(address.add(x.operandBits / 8), 16, 'unsigned'));
    x.helper('load_segment', i32(number));
    target.write(offset);
    x.leave();
  });
}

for (const [digit, name, base, limit] of [[0, 'GDT', state.GDTR_BASE, state.GDTR_LIMIT], [1, 'IDT', state.IDTR_BASE, state.IDTR_LIMIT]] as const) {
  instruction(`S${name}`, `0F 01/${digit} Ms ; mem`, { modal: true, access: 'w' }, (x, memory) => {
    mayTellAboutSystem(x);
    const address = memory.linear();
    const bits = fullWidth(x);
    // Both halves are checked for writing before either is stored.
    x.load(address.add(2), bits, 'unsigned', 'modify');
    x.store(address, 16, x.state64(limit).and(0xffff));
    x.store(address.add(2), bits, x.state64(base));
  });
  instruction(`L${name}`, [16, 32, 64].map((bits) => `0F 01/${digit + 2} Ms ; mem s${bits}`), { modal: true }, (x, memory) => {
    x.requirePrivilege();
    const address = memory.linear();
    const size = x.load(address, 16, 'unsigned');
    const value = x.load(address.add(2), fullWidth(x), 'unsigned');
    const start = x.f.let(x.longMode || x.operandBits !== 16 ? value : value.and(0xff_ffff));
    if (x.longMode) x.f.if(isCanonical(start, x.state64(state.BASE_CANONICAL_SHIFT)).eqz(), () => x.raiseWithCode(13, 0));
    x.setState64(base, start);
    x.setState32(limit, size.wrap());
  });
}
for (const [digit, name, segment] of [[0, 'SLDT', state.LDTR], [1, 'STR', state.TR]] as const) {
  const read = (x: Semantics, target: Operand): void => {
    requireDescriptors(x);
    mayTellAboutSystem(x);
    target.write(apply('i64.extend_i32_u', x.state32(segment + state.SEGMENT_SELECTOR)));
  };
  instruction(name, `0F 00/${digit} Ev ; reg`, { access: 'w' }, read);
  instruction(name, `0F 00/${digit} Ew ; mem`, { access: 'w' }, read);
}
for (const [digit, name] of [[2, 'lldt'], [3, 'ltr']] as const) {
  instruction(name.toUpperCase(), `0F 00/${digit} Ew`, {}, (x, source) => {
    requireDescriptors(x);
    x.requirePrivilege();
    x.setArgument(0, source.unsigned());
    x.helper(name);
  });
}
for (const [digit, name] of [[4, 'verr'], [5, 'verw']] as const) {
  instruction(name.toUpperCase(), `0F 00/${digit} Ew`, {}, (x, source) => {
    requireDescriptors(x);
    x.setArgument(0, source.unsigned());
    x.setStatusFlags(x.statusFlags().and(~0x40).or(select(x.helper(name), i64(0x40), i64(0))));
  });
}
for (const [opcode, name] of [['02', 'lar'], ['03', 'lsl']] as const) {
  instruction(name.toUpperCase(), `0F ${opcode} Gv Ew`, { access: 'mr' }, (x, target, source) => {
    requireDescriptors(x);
    x.setArgument(0, source.unsigned());
    const found = x.helper(name);
    const old = target.unsigned();
    const value = x.argument(0);
    x.f.if(found, () => target.write(value), () => { if (x.operandBits !== 32) target.write(old); });
    x.setStatusFlags(x.statusFlags().and(~0x40).or(select(found, i64(0x40), i64(0))));
  });
}

// The selector's privilege becomes at least the second operand's.
instruction('ARPL', '63 Ew Gw ; n64', { access: 'mr' }, (x, target, source) => {
  requireDescriptors(x);
  const selector = target.unsigned();
  const wanted = x.f.let(source.unsigned().and(3));
  const lower = x.f.let(selector.and(3).ltU(wanted));
  target.write(select(lower, selector.and(~3).or(wanted), selector));
  x.setStatusFlags(x.statusFlags().and(~0x40).or(select(lower, i64(0x40), i64(0))));
});

// --- Virtualisation and waiting ----------------------------------------------------------------------

for (const [name, encoding] of [['VMCALL', 'NP 0F 01 C1'], ['VMMCALL', 'NP 0F 01 D9']] as const) {
  instruction(name, encoding, { ends: 'block', modal: true }, (x) => {
    x.helper('hypercall', i32(x.longMode ? 1 : 0));
    x.leave();
  });
}

// --- Extended state ----------------------------------------------------------------------------------

for (const [name, encoding, feature, helper, ...operation] of [
  ['FXSAVE', '0F AE/0 Mfx', 'fxsr', 'fxsave'],
  ['FXRSTOR', '0F AE/1 Mfx', 'fxsr', 'fxrstor'],
  ['XSAVE', '0F AE/4 Mxs', 'xsave', 'xsave', 0],
  ['XSAVEOPT', '0F AE/6 Mxs', 'xsaveopt', 'xsave', 1],
  ['XSAVEC', '0F C7/4 Mxs', 'xsavec', 'xsave', 2],
  ['XRSTOR', '0F AE/5 Mxs', 'xsave', 'xrstor'],
] as const) {
  for (const wide of [0, 1]) {
    instruction(name, `NP ${encoding} ; mem W${wide}`, { access: helper.endsWith('save') ? 'w' : 'r', modal: true, feature }, (x, memory) => {
      x.setArgument(0, memory.linear());
      x.helper(helper, ...operation, i32(wide));
    });
  }
}
