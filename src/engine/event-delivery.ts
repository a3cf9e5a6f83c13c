/**
 * Interrupts and exceptions through the IDT in long mode, as generated code: what nearly all of them are. Enters 64-bit handlers at
 * level 0 whose stack is there. Anything else, and whatever would fault on the way, is left to cpu/exceptions.ts before anything has
 * changed. SDM 3A 6.14.
 */

import { Access, FAULTED, MMIO } from '../cpu/mmu.ts';
import * as state from '../cpu/state.ts';
import { isCanonical } from '../isa/canonical.ts';
import { attributesOf, baseOf, isCode64, isInGdt, limitOf } from '../isa/descriptor.ts';
import { type Expression, i32, i64, select } from '../wasm/expression.ts';
import type { FunctionReference } from '../wasm/function-builder.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import * as L from './layout.ts';

const PAGE_FAULT = 14;
const EFER_LMA = 1 << 10;
const [TRAP, INTERRUPT, NESTED, RESUME] = [1 << 8, 1 << 9, 1 << 14, 1 << 16];
/** A gate's attributes: P, and a type whose last bit tells trap gates (15) from interrupt gates (14). */
const GATE_PRESENT = 0x8000;
const GATE_TYPE_64 = 0x0e00;
const GATE_TYPE_MASK = 0x1e00;
const TRAP_GATE = 0x0100;
/** Of a 64-bit TSS: RSP0, and what precedes IST1. */
const TSS_RSP0 = 4;
const TSS_IST0 = 0x1c;
/** Nested faults that real programs have at most, and what one more costs in instructions. */
export const MOST_FRUITLESS_FAULTS = 64;
export const FRUITLESS_FAULT_COST = 64;

export interface EventDelivery {
  /** (vcpu, vector, errorCode or -1, isFault) -> 1 where the event was delivered at RIP; 0, and nothing has changed, where it must be otherwise. */
  enterHandler: FunctionReference;
  /** (vcpu, op or 0) -> 1 where the page fault that `fill` just met was delivered, RIP being the handler's; 0: raise it. */
  takeFault: FunctionReference;
}

export function buildEventDelivery(module: ModuleBuilder, fill: FunctionReference, codeCheck: FunctionReference): EventDelivery {
  /** (vcpu, address, write) -> linear address for the processor's own access to the 8 bytes there (or what lies behind them in the page), MMIO or FAULTED. */
  const implicit = module.function('implicit', { parameters: ['i32', 'i64', 'i32'], results: ['i32'] });
  {
    const f = implicit;
    const [vcpu, address, write] = [f.parameter(0), f.parameter(1), f.parameter(2)];
    // What it may do is what a supervisor may do without RFLAGS.AC.
    const context = vcpu.load('i32.load', state.TLB_SLOT).add(L.SUPERVISOR_CONTEXT * L.CONTEXT_SIZE);
    const entry = f.let(context.add(address.shrU(12).wrap().and(L.TLB_ENTRIES - 1).mul(L.TLB_ENTRY_SIZE)));
    const tag = select(write, entry.load('i64.load', L.TLB_WRITE), entry.load('i64.load', L.TLB_READ));
    f.if(tag.eq(address.and(-4096)), () => f.return(address.wrap().add(entry.load('i32.load', L.TLB_ADDEND))));
    f.if(address.wrap().and(0xfff).gtU(4096 - 8), () => f.return(i32(MMIO)));
    f.returnCall(fill, vcpu, address, write.or(Access.implicit | Access.quiet));
  }

  const enterHandler = module.function('enter_handler', { parameters: ['i32', 'i32', 'i32', 'i32'], results: ['i32'] });
  {
    const f = enterHandler;
    const [vcpu, vector, code, isFault] = [0, 1, 2, 3].map((i) => f.parameter(i));
    const leaveIf = (condition: Expression): void => f.if(condition, () => f.return(i32(0)));
    const at = (address: Expression, write = 0): Expression => {
      const linear = f.call(implicit, vcpu, address, i32(write));
      leaveIf(linear.eq(MMIO).or(linear.eq(FAULTED)));
      return linear;
    };
    const canonical = (address: Expression): Expression => isCanonical(address, vcpu.load('i64.load', state.CANONICAL_SHIFT));

    leaveIf(vcpu.load('i32.load', state.EFER).and(EFER_LMA).eqz());
    // The gate.
    leaveIf(vector.shl(4).add(15).gtU(vcpu.load('i32.load', state.IDTR_LIMIT)));
    const gate = f.let(vcpu.load('i64.load', state.IDTR_BASE).add(vector.shl(4).extendU()));
    const low = f.let(at(gate).load('i64.load'));
    const high = f.let(at(gate.add(8)).load('i64.load32_u'));
    const attributes = f.let(low.shrU(32).wrap().and(0xffff));
    leaveIf(attributes.and(GATE_PRESENT | GATE_TYPE_MASK).ne(GATE_PRESENT | GATE_TYPE_64).and(attributes.and(GATE_PRESENT | GATE_TYPE_MASK).ne(GATE_PRESENT | GATE_TYPE_64 | TRAP_GATE)));
    const target = f.let(low.and(0xffff).or(low.shrU(48).shl(16)).or(high.shl(32)));
    leaveIf(canonical(target).eqz());
    // The code segment: of level 0.
    const selector = f.let(low.shrU(16).wrap().and(0xffff));
    leaveIf(isInGdt(selector, vcpu.load('i32.load', state.GDTR_LIMIT)).eqz());
    const descriptor = f.let(at(vcpu.load('i64.load', state.GDTR_BASE).add(selector.and(0xfff8).extendU())).load('i64.load'));
    const segment = f.let(attributesOf(descriptor));
    leaveIf(isCode64(segment, i32(0)).eqz());
    // The stack: the interrupted one, or one of the TSS.
    const oldCpl = f.let(vcpu.load('i32.load', state.CPL));
    const oldRsp = f.let(vcpu.load('i64.load', state.RSP));
    const ist = f.let(attributes.and(7));
    const rsp = f.local('i64');
    f.set(rsp, oldRsp);
    f.if(ist.or(oldCpl), () => {
      const offset = f.let(select(ist, ist.shl(3).add(TSS_IST0), i32(TSS_RSP0)));
      leaveIf(offset.add(7).gtU(vcpu.load('i32.load', state.TR + state.SEGMENT_LIMIT)));
      f.set(rsp, at(vcpu.load('i64.load', state.TR).add(offset.extendU())).load('i64.load'));
    });
    const top = f.let(f.get(rsp).and(-16));
    const bottom = f.let(top.sub(select(code.ltS(0), i64(40), i64(48))));
    leaveIf(canonical(bottom).eqz().or(bottom.xor(top.sub(1)).shrU(12).nonZero()));
    const frame = at(bottom, Access.write);
    // Nothing can fault any more.
    const start = f.local('i32');
    f.set(start, frame);
    f.if(code.geS(0), () => {
      f.store('i64.store', f.get(start), code.extendU());
      f.set(start, f.get(start).add(8));
    });
    const carry = f.let(vcpu.load('i64.load', state.FLAG_CARRY));
    const sign = f.let(vcpu.load('i64.load', state.FLAG_SIGN));
    const kept = f.let(vcpu.load('i64.load', state.RFLAGS));
    const status = carry.shrU(63)
      .or(carry.and(8).shl(1))
      .or(sign.and(0xff).popcnt().and(1).xor(1).shl(2))
      .or(vcpu.load('i64.load', state.FLAG_ZERO).eqz().extendU().shl(6))
      .or(sign.shrU(63).shl(7))
      .or(vcpu.load('i64.load', state.FLAG_OVERFLOW).shrU(63).shl(11));
    const words = [
      vcpu.load('i64.load', state.RIP),
      vcpu.load('i64.load32_u', state.CS + state.SEGMENT_SELECTOR),
      kept.or(status).or(isFault.extendU().shl(Math.log2(RESUME))),
      oldRsp,
      vcpu.load('i64.load32_u', state.SS + state.SEGMENT_SELECTOR),
    ];
    for (const [i, word] of words.entries()) f.store('i64.store', f.get(start), word, 8 * i);
    f.call(codeCheck, frame, i32(48));

    f.store('i64.store', vcpu, bottom, state.RSP);
    const cleared = select(attributes.and(TRAP_GATE), i64(TRAP | NESTED | RESUME), i64(TRAP | NESTED | RESUME | INTERRUPT));
    f.store('i64.store', vcpu, kept.and(cleared.not()), state.RFLAGS);
    const load = (slot: number, base: Expression, limit: Expression, selector: Expression, attributes: Expression, access: Expression): void => {
      f.store('i64.store', vcpu, base, slot + state.SEGMENT_BASE);
      f.store('i32.store', vcpu, limit, slot + state.SEGMENT_LIMIT);
      f.store('i32.store', vcpu, selector, slot + state.SEGMENT_SELECTOR);
      f.store('i32.store', vcpu, attributes, slot + state.SEGMENT_ATTRIBUTES);
      f.store('i32.store', vcpu, access, slot + state.SEGMENT_ACCESS);
    };
    load(state.CS, baseOf(descriptor), limitOf(descriptor), selector.and(0xfffc), segment, segment.shrU(9).and(1).mul(state.READABLE));
    f.store('i32.store', vcpu, state.CODE_64, state.CODE_MODE);
    f.store('i64.store', vcpu, 0, state.CODE_KEY);
    f.if(oldCpl, () => {
      load(state.SS, i64(0), i32(-1), i32(0), i32(0), i32(0));
      f.store('i32.store', vcpu, 0, state.CPL);
      const ac = kept.wrap().shrU(18).and(1);
      const kind = vcpu.load('i32.load', state.CR4).shrU(21).and(ac).add(L.SUPERVISOR_CONTEXT);
      f.store('i32.store', vcpu, vcpu.load('i32.load', state.TLB_SLOT).add(kind.mul(L.CONTEXT_SIZE)), state.TLB_BASE);
    });
    f.store('i64.store', vcpu, target, state.RIP);
    f.return(i32(1));
  }

  const takeFault = module.function('take_fault', { parameters: ['i32', 'i32'], results: ['i32'] });
  {
    const f = takeFault;
    const [vcpu, op] = [f.parameter(0), f.parameter(1)];
    const code = f.let(vcpu.load('i32.load', state.FAULT_CODE));
    const asked = vcpu.load('i32.load', state.TAKES_FAULTS).eqz().or(vcpu.load('i32.load', state.BREAKPOINTS)).or(vcpu.load('i32.load', state.CODE_MODE).ne(state.CODE_64));
    f.if(asked.or(code.ltS(0)), () => f.return(i32(0)));
    f.store('i64.store', vcpu, vcpu.load('i64.load', state.ARGUMENT + 24), state.CR2);
    f.if(op, () => f.store('i64.store', vcpu, vcpu.load('i64.load', state.CODE_BASE).add(op.load('i64.load16_u', L.OP_IP)), state.RIP));
    f.if(f.call(enterHandler, vcpu, i32(PAGE_FAULT), code, i32(1)).eqz(), () => f.return(i32(0)));
    // What the block paid for and did not run is given back; as Engine.faulted does.
    const budget = f.local('i32');
    f.set(budget, vcpu.load('i32.load', state.BUDGET));
    f.if(op, () => f.set(budget, f.get(budget).add(op.load('i32.load16_s', L.OP_REMAINING)).add(1)));
    f.store('i32.store', vcpu, 0, state.CURRENT_OP);
    const retired = f.let(vcpu.load('i64.load', state.RETIRED_BASE).sub(f.get(budget).extendS()));
    const fruitless = f.let(select(retired.eq(vcpu.load('i64.load', state.LAST_FAULT)), vcpu.load('i32.load', state.FRUITLESS_FAULTS).add(1), i32(0)));
    f.store('i32.store', vcpu, fruitless, state.FRUITLESS_FAULTS);
    f.if(fruitless.geS(MOST_FRUITLESS_FAULTS), () => f.set(budget, f.get(budget).sub(FRUITLESS_FAULT_COST)));
    f.store('i64.store', vcpu, vcpu.load('i64.load', state.RETIRED_BASE).sub(f.get(budget).extendS()), state.LAST_FAULT);
    f.store('i32.store', vcpu, f.get(budget), state.BUDGET);
    f.return(i32(1));
  }
  return { enterHandler, takeFault };
}
