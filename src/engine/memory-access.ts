/**
 * The WebAssembly behind every memory access that the inline TLB lookup does not settle: the page walk, TLB fills,
 * accesses across pages, MMIO, writes to pages that code was decoded from. SDM 3A chapter 4, APM 2 chapter 5.
 * Limits: a split access reads MMIO as all ones and drops its part of a write.
 */

import type { CpuModel } from '../cpu/cpu-model.ts';
import { Access, FAULTED, MMIO } from '../cpu/mmu.ts';
import * as state from '../cpu/state.ts';
import { isCanonical } from '../isa/canonical.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { FOUR_GIB } from '../memory/guest-memory.ts';
import { apply, type Expression, i32, i64, select } from '../wasm/expression.ts';
import type { FunctionBuilder, FunctionReference, Label } from '../wasm/function-builder.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import { buildEventDelivery } from './event-delivery.ts';
import { jumpBlock, jumpEntry, jumpHit } from './jump-cache.ts';
import * as L from './layout.ts';

/** Bits of a paging entry's that may be reserved: up to those for software in long mode, up to NX under PAE paging. */
const LONG_MODE_ADDRESS = (1n << 52n) - 1n;
const PAE_ADDRESS = (1n << 63n) - 1n;
/** PSE-36: bits 13 to 20 of a 4-MiB entry are the page's physical address bits 32 to 39; bit 21 is reserved. */
const PSE36_RESERVED = 1 << 21;
const [PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL] = [1, 2, 4, 0x20, 0x40, 0x80, 0x100];
const CR0_PG = 0x8000_0000 | 0;
const CR0_WP = 0x10000;
const CR4_PSE = 1 << 4;
const CR4_PAE = 1 << 5;
const CR4_PGE = 1 << 7;
const CR4_LA57 = 1 << 12;
const CR4_SMEP = 1 << 20;
const CR4_SMAP = 1 << 21;
const EFER_LMA = 1 << 10;
const EFER_NXE = 1 << 11;
const RFLAGS_AC = 1 << 18;
/** An address that is canonical nowhere and that no legacy mode makes. */
const UNREACHABLE = 1n << 62n;
const FAULT_RESERVED = 8;
const [STACK_FAULT, GENERAL_PROTECTION] = [12, 13];
const ALIGNMENT_CHECK = 17;

export interface MemoryImports {
  /** (vcpu, errorCode): raises #PF; the address is in CR2's shadow slot, ARGUMENT 3. Never returns. */
  pageFault: FunctionReference;
  /** (vcpu): raises #GP(0) or #SS(0) for the non-canonical address in ARGUMENT 3. Never returns. */
  nonCanonical: FunctionReference;
  /** (vcpu, bytes): reads MMIO at PHYSICAL into BOUNCE; writes BOUNCE there. */
  mmioRead: FunctionReference;
  mmioWrite: FunctionReference;
  /** (linear, bytes): RAM that code was decoded from is about to change, or just has. */
  codeWritten: FunctionReference;
  /** (vcpu): finds the block at RIP: its first operation, or 0 where the run loop must look first. May raise. */
  resolve: FunctionReference;
  /** (vcpu, vector, errorCode): raises an exception. Never returns. */
  raise: FunctionReference;
  /** (vcpu, segment, bytes, write): looks closely at an access to the offset in ARGUMENT; whether it is allowed. */
  segmentAllows: FunctionReference;
  /** (vcpu, op): looks closely at an instruction whose second page is not where it was, or nowhere: 1 where it may run. May raise. */
  checkPage: FunctionReference;
  /**
   * (vcpu, bytes, how): an access to the address in ARGUMENT 3 while somebody looks at them; 0 reads, 1 reads what will be written, 2
   * writes. May raise.
   */
  dataAccess: FunctionReference;
  /** Table index of the handler that blocks of changed code are left with. */
  staleHandler: number;
}

export interface MemoryAccess {
  fill: FunctionReference;
  readSlow: FunctionReference;
  writeSlow: FunctionReference;
  bulk: FunctionReference;
  codeCheck: FunctionReference;
  lookup: FunctionReference;
  checkPage: FunctionReference;
  sameSecondPage: FunctionReference;
  enterHandler: FunctionReference;
  segmentLinear: FunctionReference;
  operandLinear: FunctionReference;
  stackLinear: FunctionReference;
}

export function buildMemoryAccess(module: ModuleBuilder, memory: GuestMemory, layout: L.Layout, imports: MemoryImports, model: CpuModel): MemoryAccess {
  const { abovePhysical } = model;
  /** The address of a page or table in a paging entry. */
  const addressMask = LONG_MODE_ADDRESS & ~abovePhysical & ~0xfffn;
  const topLargeLevel = model.features.has('pdpe1gb') ? 2 : 1;
  /** (physical) -> linear address of that RAM, or MMIO. */
  const ramLinear = module.function('ram_linear', { parameters: ['i64'], results: ['i32'] });
  {
    const f = ramLinear;
    const physical = f.parameter(0);
    f.if(physical.ltU(memory.lowBytes), () => f.return(physical.wrap().add(memory.ramBase)));
    const highBytes = memory.ramBytes - memory.lowBytes;
    if (highBytes > 0) {
      const above = f.let(physical.sub(FOUR_GIB));
      f.if(above.ltU(highBytes), () => f.return(above.wrap().add(memory.ramBase).add(memory.lowBytes)));
    }
    f.return(MMIO);
  }

  /** Linear address of the word of code lines of the page that holds `linear`. */
  const codeLinesAt = (linear: Expression): Expression => linear.sub(memory.ramBase).shrU(12).shl(3).add(layout.codeLines);

  const watchesData = (vcpu: Expression): Expression => vcpu.load('i32.load', state.BREAKPOINTS).and(state.DATA_BREAKPOINTS | state.WATCHED);

  const checksAlignment = (vcpu: Expression): Expression =>
    vcpu.load('i32.load', state.TLB_BASE).eq(vcpu.load('i32.load', state.TLB_SLOT).add(L.CHECKED_CONTEXT * L.CONTEXT_SIZE));

  /** (linear, bytes): tells TypeScript where lines with code are written. The range lies in one page. */
  const codeCheck = module.function('code_check', { parameters: ['i32', 'i32'], results: [] });
  {
    const f = codeCheck;
    const [linear, bytes] = [f.parameter(0), f.parameter(1)];
    const lines = f.let(codeLinesAt(linear).load('i64.load'));
    f.if(lines.eqz(), () => f.return());
    const first = f.let(linear.shrU(6).and(63).extendU());
    const last = f.let(linear.add(bytes).sub(1).shrU(6).and(63).extendU());
    const mask = i64(-1).shl(first).and(i64(-1).shrU(i64(63).sub(last)));
    f.if(lines.and(mask).nonZero(), () => f.call(imports.codeWritten, linear, bytes));
  }

  /**
   * (vcpu, address, access) -> linear address, MMIO (PHYSICAL says where) or FAULTED (with Access.probe). Fills the TLB for
   * data accesses.
   */
  const fill = module.function('fill', { parameters: ['i32', 'i64', 'i32'], results: ['i32'] });
  {
    const f = fill;
    const [vcpu, address, access] = [f.parameter(0), f.parameter(1), f.parameter(2)];
    const write = f.let(access.and(Access.write));
    const user = f.let(access.and(Access.user).nonZero());
    const execute = f.let(access.and(Access.execute).nonZero());
    const [virtual, physical, writable, userPage, noExecute, entry, leaf, dirty, linear] = [
      f.local('i64'), f.local('i64'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i64'), f.local('i32'), f.local('i32'), f.local('i32'),
    ];
    f.set(virtual, address);
    f.store('i64.store', vcpu, address, state.ARGUMENT + 24);
    const cr0 = f.let(vcpu.load('i32.load', state.CR0));
    const cr4 = f.let(vcpu.load('i32.load', state.CR4));
    const efer = f.let(vcpu.load('i32.load', state.EFER));
    /** Sets flags in the entry. Somebody may run a page table as code. */
    const mark = (flags: Expression): void => {
      f.store('i32.store', f.get(leaf), flags);
      f.call(codeCheck, f.get(leaf), i32(4));
    };
    const pageFault = (present: Expression | number, reserved: number): void => {
      const noExecutes = efer.and(EFER_NXE).and(cr4.shl(6)).or(cr4.and(CR4_SMEP));
      const fetch = execute.and(noExecutes.nonZero());
      const code = f.let(write.shl(1).or(user.shl(2)).or(fetch.shl(4)).or(typeof present === 'number' ? i32(present) : present).or(reserved));
      f.if(access.and(Access.probe | Access.quiet), () => {
        f.store('i32.store', vcpu, code, state.FAULT_CODE);
        f.return(FAULTED);
      });
      f.call(imports.pageFault, vcpu, code);
    };
    /** Entries of 8 bytes, of the given levels (4 is the PML5, 0 the page table); `done` is left for with the address in `physical`. */
    const walkWide = (levels: number[], reservedMask: bigint, done: Label): void => {
      for (const level of levels) {
        const index = f.get(virtual).shrU(12 + 9 * level).and(511).shl(3);
        f.set(leaf, f.call(ramLinear, f.get(physical).add(index)));
        f.if(f.get(leaf).eq(MMIO), () => pageFault(0, 0));
        f.set(entry, f.get(leaf).load('i64.load'));
        const flags = f.let(f.get(entry).wrap());
        f.if(flags.and(PRESENT).eqz(), () => pageFault(0, 0));
        // Reserved: address bits above what we have, NX without NXE, PS above the largest pages.
        const reserved = f.get(entry).and(reservedMask).nonZero();
        const strayNx = f.get(entry).ltS(0).and(efer.and(EFER_NXE).eqz());
        const strayLarge = level > topLargeLevel ? flags.and(LARGE).nonZero() : i32(0);
        f.if(reserved.or(strayNx).or(strayLarge), () => pageFault(1, FAULT_RESERVED));
        f.set(writable, f.get(writable).and(flags));
        f.set(userPage, f.get(userPage).and(flags));
        f.set(noExecute, f.get(noExecute).or(f.get(entry).ltS(0)));
        if (level > 0) {
          if (level <= topLargeLevel) {
            const size = 1n << BigInt(12 + 9 * level);
            f.if(flags.and(LARGE), () => {
              // Bit 12 is PAT; the bits between it and the page's size must be 0.
              f.if(f.get(entry).and((size - 1n) & ~0x1fffn).nonZero(), () => pageFault(1, FAULT_RESERVED));
              f.set(physical, f.get(entry).and(addressMask & ~(size - 1n)).or(f.get(virtual).and(size - 1n)));
              largePage();
              f.branch(done);
            });
          }
          f.if(flags.and(ACCESSED).eqz(), () => mark(flags.or(ACCESSED)));
          f.set(physical, f.get(entry).and(addressMask));
        } else f.set(physical, f.get(entry).and(addressMask).or(f.get(virtual).and(0xfff)));
      }
    };
    /** 32-bit paging: two levels of 4-byte entries. */
    const walkNarrow = (done: Label): void => {
      for (const level of [1, 0]) {
        const index = f.get(virtual).shrU(12 + 10 * level).and(1023).shl(2);
        f.set(leaf, f.call(ramLinear, f.get(physical).add(index)));
        f.if(f.get(leaf).eq(MMIO), () => pageFault(0, 0));
        f.set(entry, f.get(leaf).load('i64.load32_u'));
        const flags = f.let(f.get(entry).wrap());
        f.if(flags.and(PRESENT).eqz(), () => pageFault(0, 0));
        f.set(writable, f.get(writable).and(flags));
        f.set(userPage, f.get(userPage).and(flags));
        if (level > 0) {
          f.if(flags.and(LARGE).nonZero().and(cr4.and(CR4_PSE).nonZero()), () => {
            f.if(flags.and(PSE36_RESERVED), () => pageFault(1, FAULT_RESERVED));
            const high = f.get(entry).shrU(13).and(0xff).shl(32);
            f.set(physical, f.get(entry).and(0xffc0_0000).or(high).or(f.get(virtual).and(0x3f_ffff)));
            largePage();
            f.branch(done);
          });
          f.if(flags.and(ACCESSED).eqz(), () => mark(flags.or(ACCESSED)));
          f.set(physical, f.get(entry).and(0xffff_f000));
        } else f.set(physical, f.get(entry).and(0xffff_f000).or(f.get(virtual).and(0xfff)));
      }
    };
    const largePage = (): void => {
      const half = select(f.get(virtual).ltS(0), i32(state.TRAIT_LARGE_KERNEL), i32(state.TRAIT_LARGE_USER));
      f.store('i32.store', vcpu, vcpu.load('i32.load', state.TLB_TRAITS).or(half), state.TLB_TRAITS);
    };
    const notCanonical = (): void => {
      f.if(access.and(Access.probe | Access.quiet), () => {
        f.store('i32.store', vcpu, -1, state.FAULT_CODE);
        f.return(FAULTED);
      });
      f.call(imports.nonCanonical, vcpu);
    };
    f.if(address.shrU(62).eq(1), notCanonical); // UNREACHABLE, in any mode
    f.if(
      cr0.and(CR0_PG),
      () => {
        f.set(writable, i32(WRITABLE));
        f.set(userPage, i32(USER));
        f.set(physical, vcpu.load('i64.load', state.CR3).and(addressMask));
        f.block((done) => {
          f.if(efer.and(EFER_LMA), () => {
            f.if(isCanonical(address, vcpu.load('i64.load', state.CANONICAL_SHIFT)).eqz(), notCanonical);
            if (model.features.has('la57')) f.if(cr4.and(CR4_LA57), () => walkWide([4], LONG_MODE_ADDRESS & abovePhysical, done));
            walkWide([3, 2, 1, 0], LONG_MODE_ADDRESS & abovePhysical, done);
            f.branch(done);
          });
          f.set(virtual, address.and(0xffff_ffff));
          f.store('i64.store', vcpu, f.get(virtual), state.ARGUMENT + 24);
          f.if(cr4.and(CR4_PAE), () => {
            // Page-directory pointers are registers, loaded with CR3.
            const pointer = f.get(virtual).shrU(30).shl(3).wrap();
            f.set(entry, vcpu.add(pointer).load('i64.load', state.PDPTE));
            f.if(f.get(entry).wrap().and(PRESENT).eqz(), () => pageFault(0, 0));
            f.set(physical, f.get(entry).and(addressMask));
            walkWide([1, 0], PAE_ADDRESS & abovePhysical, done);
            f.branch(done);
          });
          walkNarrow(done);
        });
        // Rights. A supervisor's write needs the writable bit only under WP; its access to a user page is what SMEP and SMAP forbid.
        const explicitAc = vcpu.load('i32.load', state.RFLAGS).and(RFLAGS_AC).nonZero().and(access.and(Access.implicit).eqz());
        const forbiddenUserPage = select(execute, cr4.and(CR4_SMEP).nonZero(), cr4.and(CR4_SMAP).nonZero().and(explicitAc.eqz()));
        f.set(writable, f.get(writable).nonZero());
        f.if(
          user,
          () => f.if(f.get(userPage).eqz(), () => pageFault(1, 0)),
          () => {
            f.if(f.get(userPage).nonZero().and(forbiddenUserPage), () => pageFault(1, 0));
            f.if(cr0.and(CR0_WP).eqz(), () => f.set(writable, i32(1)));
          },
        );
        f.if(write.and(f.get(writable).eqz()), () => pageFault(1, 0));
        f.if(execute.and(f.get(noExecute)), () => pageFault(1, 0));
        const flags = f.let(f.get(entry).wrap());
        f.store('i32.store', vcpu, flags.and(GLOBAL).nonZero().and(cr4.and(CR4_PGE).nonZero()), state.WALK_GLOBAL);
        const wanted = f.let(flags.or(ACCESSED).or(write.mul(DIRTY)));
        f.if(flags.ne(wanted), () => mark(wanted));
        f.set(dirty, wanted.and(DIRTY));
        f.if(flags.and(GLOBAL).nonZero().and(f.get(virtual).geS(0)), () =>
          f.store('i32.store', vcpu, vcpu.load('i32.load', state.TLB_TRAITS).or(state.TRAIT_GLOBAL_USER), state.TLB_TRAITS),
        );
      },
      () => {
        f.set(virtual, address.and(0xffff_ffff));
        f.set(physical, f.get(virtual));
        f.store('i32.store', vcpu, 0, state.WALK_GLOBAL);
        f.set(writable, i32(1));
        f.set(dirty, i32(1));
      },
    );
    f.store('i64.store', vcpu, f.get(physical), state.PHYSICAL);
    f.set(linear, f.call(ramLinear, f.get(physical)));
    f.if(f.get(linear).eq(MMIO), () => f.return(MMIO));
    f.if(execute.or(access.and(Access.probe)), () => f.return(f.get(linear)));
    const isImplicit = f.let(access.and(Access.implicit));
    f.if(checksAlignment(vcpu).and(isImplicit.eqz()), () => f.return(f.get(linear)));
    // What is watched never gets into the TLB.
    f.if(watchesData(vcpu), () => {
      f.if(vcpu.load('i32.load', state.BREAKPOINTS).and(state.WATCHED), () => f.return(f.get(linear)));
      const samePage = (i: number): Expression => vcpu.load('i64.load', state.DR + 8 * i).xor(address).shrU(12).eqz();
      f.if(samePage(0).or(samePage(1)).or(samePage(2)).or(samePage(3)), () => f.return(f.get(linear)));
    });
    // The entry lets writes through only where the next one has nothing to do: page dirty, no code in it.
    // What the processor may do by itself is what a supervisor may without RFLAGS.AC.
    const ownContext = vcpu.load('i32.load', state.TLB_SLOT).add(L.SUPERVISOR_CONTEXT * L.CONTEXT_SIZE);
    const context = f.let(select(isImplicit, ownContext, vcpu.load('i32.load', state.TLB_BASE)));
    const slot = f.let(context.add(f.get(virtual).shrU(12).wrap().and(L.TLB_ENTRIES - 1).mul(L.TLB_ENTRY_SIZE)));
    const page = f.let(f.get(virtual).and(-4096));
    const free = f.let(f.get(dirty).nonZero().and(f.get(writable)).and(codeLinesAt(f.get(linear)).load('i64.load').eqz()));
    f.store('i64.store', slot, page, L.TLB_READ);
    f.store('i64.store', slot, select(free, page, i64(L.TLB_INVALID)), L.TLB_WRITE);
    f.store('i32.store', slot, f.get(linear).sub(f.get(virtual).wrap()), L.TLB_ADDEND);
    const group = i64(1).shl(f.get(virtual).shrU(12 + Math.log2(L.TLB_GROUP)));
    f.store('i64.store', context, context.load('i64.load', L.CONTEXT_FILLED).or(group), L.CONTEXT_FILLED);
    f.if(free, () => {
      const writer = f.let(f.get(linear).sub(memory.ramBase).shrU(12).add(layout.pageWriters));
      const known = f.let(writer.load('i32.load8_u'));
      const own = f.let(vcpu.sub(L.vcpuBase(0)).divU(layout.vcpuBytes).add(1));
      f.if(known.ne(own), () => f.store('i32.store8', writer, select(known, i32(L.MANY_WRITERS), own)));
    });
    f.return(f.get(linear));
  }

  const { enterHandler, takeFault } = buildEventDelivery(module, fill, codeCheck);

  /** (vcpu, address, bytes): #AC for up to 8 bytes that are not aligned, where that is checked. It comes before #PF, behind #GP. */
  const alignment = module.function('alignment', { parameters: ['i32', 'i64', 'i32'], results: [] });
  {
    const f = alignment;
    const [vcpu, address, bytes] = [f.parameter(0), f.parameter(1), f.parameter(2)];
    const misaligned = address.wrap().and(bytes.sub(1)).nonZero().and(bytes.leU(8));
    const canonical = isCanonical(address, vcpu.load('i64.load', state.CANONICAL_SHIFT));
    f.if(checksAlignment(vcpu).and(misaligned).and(canonical), () => void f.call(imports.raise, vcpu, i32(ALIGNMENT_CHECK), i32(0)));
  }

  /** (vcpu, address, bytes, how): tells of an access to whoever looks at them. */
  const watch = module.function('watch', { parameters: ['i32', 'i64', 'i32', 'i32'], results: [] });
  {
    const f = watch;
    const [vcpu, address, bytes, how] = [0, 1, 2, 3].map((i) => f.parameter(i));
    f.if(watchesData(vcpu), () => {
      f.store('i64.store', vcpu, address, state.ARGUMENT + 24);
      f.call(imports.dataAccess, vcpu, bytes, how);
    });
  }

  const userBit = (vcpu: Expression): Expression => vcpu.load('i32.load', state.CPL).eq(3).shl(1);

  /** (to, from, bytes): copies a few bytes, an operand's at once. */
  const copyBytes = module.function('copy_bytes', { parameters: ['i32', 'i32', 'i32'], results: [] });
  {
    const f = copyBytes;
    const i = f.local('i32');
    for (const [bytes, load, store] of [[8, 'i64.load', 'i64.store'], [4, 'i32.load', 'i32.store'], [1, 'i32.load8_u', 'i32.store8'], [16, 'v128.load', 'v128.store']] as const) {
      f.if(f.parameter(2).eq(bytes), () => {
        f.store(store, f.parameter(0), f.parameter(1).load(load));
        f.return();
      });
    }
    f.loop((again) => {
      f.if(f.get(i).geS(f.parameter(2)), () => f.return());
      f.store('i32.store8', f.parameter(0).add(f.get(i)), f.parameter(1).add(f.get(i)).load('i32.load8_u'));
      f.set(i, f.get(i).add(1));
      f.branch(again);
    });
  }

  /** Translates an operand's address in a handler's slow path: a page fault is delivered from here, where that can be done quickly, and 1 returned. */
  const inOnePage = (f: FunctionBuilder, vcpu: Expression, op: Expression, address: Expression, access: Expression): Expression => {
    const linear = f.call(fill, vcpu, address, access.or(Access.quiet));
    f.if(linear.eq(FAULTED), () => {
      f.if(f.call(takeFault, vcpu, op), () => f.return(1));
      // Raises what the walk met.
      f.call(fill, vcpu, address, access);
    });
    return linear;
  };

  /** Of an access that begins in one page and ends in the next: that address comes before any page. */
  const lastIsCanonical = (f: FunctionBuilder, vcpu: Expression, last: Expression): void =>
    f.if(isCanonical(last, vcpu.load('i64.load', state.CANONICAL_SHIFT)).eqz(), () => {
      f.store('i64.store', vcpu, last, state.ARGUMENT + 24);
      f.call(imports.nonCanonical, vcpu);
    });

  /** (vcpu, op, address, bytes, modify): the bytes, from one page or two or MMIO, into BOUNCE. 1 where a fault was delivered instead. */
  const readSlow = module.function('read_slow', { parameters: ['i32', 'i32', 'i64', 'i32', 'i32'], results: ['i32'] });
  {
    const f = readSlow;
    const [vcpu, op, address, bytes, modify] = [0, 1, 2, 3, 4].map((i) => f.parameter(i));
    f.store('i32.store', vcpu, op, state.CURRENT_OP);
    const access = f.let(modify.or(userBit(vcpu)));
    f.call(alignment, vcpu, address, bytes);
    f.call(watch, vcpu, address, bytes, modify);
    const inPage = f.let(i32(4096).sub(address.wrap().and(0xfff)));
    const bounce = f.let(vcpu.add(state.BOUNCE));
    f.if(
      bytes.gtU(inPage),
      () => {
        lastIsCanonical(f, vcpu, address.add(bytes.extendU()).sub(1));
        const first = f.call(fill, vcpu, address, access);
        const second = f.call(fill, vcpu, address.or(0xfff).add(1), access);
        f.store('i64.store', bounce, -1);
        f.store('i64.store', bounce, -1, 8);
        f.if(first.ne(MMIO), () => f.call(copyBytes, bounce, first, inPage));
        f.if(second.ne(MMIO), () => f.call(copyBytes, bounce.add(inPage), second, bytes.sub(inPage)));
      },
      () => {
        const linear = inOnePage(f, vcpu, op, address, access);
        f.if(
          linear.eq(MMIO),
          () => f.call(imports.mmioRead, vcpu, bytes),
          () => f.call(copyBytes, bounce, linear, bytes),
        );
      },
    );
    f.return(0);
  }

  /** (vcpu, op, address, bytes): BOUNCE into one page or two or MMIO. 1 where a fault was delivered instead. */
  const writeSlow = module.function('write_slow', { parameters: ['i32', 'i32', 'i64', 'i32'], results: ['i32'] });
  {
    const f = writeSlow;
    const [vcpu, op, address, bytes] = [0, 1, 2, 3].map((i) => f.parameter(i));
    f.store('i32.store', vcpu, op, state.CURRENT_OP);
    const access = f.let(userBit(vcpu).or(Access.write));
    f.call(alignment, vcpu, address, bytes);
    f.call(watch, vcpu, address, bytes, i32(2));
    const inPage = f.let(i32(4096).sub(address.wrap().and(0xfff)));
    const bounce = f.let(vcpu.add(state.BOUNCE));
    const put = (linear: Expression, from: Expression, count: Expression): void => {
      f.call(copyBytes, linear, from, count);
      f.call(codeCheck, linear, count);
    };
    f.if(
      bytes.gtU(inPage),
      () => {
        lastIsCanonical(f, vcpu, address.add(bytes.extendU()).sub(1));
        const first = f.call(fill, vcpu, address, access);
        const second = f.call(fill, vcpu, address.or(0xfff).add(1), access);
        f.if(first.ne(MMIO), () => put(first, bounce, inPage));
        f.if(second.ne(MMIO), () => put(second, bounce.add(inPage), bytes.sub(inPage)));
      },
      () => {
        const linear = inOnePage(f, vcpu, op, address, access);
        f.if(
          linear.eq(MMIO),
          () => f.call(imports.mmioWrite, vcpu, bytes),
          () => put(linear, bounce, bytes),
        );
      },
    );
    f.return(0);
  }

  /** (vcpu, op, address, write) -> linear address of RAM there, or MMIO: for string instructions, which go by pages. */
  const bulk = module.function('bulk', { parameters: ['i32', 'i32', 'i64', 'i32'], results: ['i32'] });
  {
    const f = bulk;
    const [vcpu, op, address, write] = [0, 1, 2, 3].map((i) => f.parameter(i));
    f.store('i32.store', vcpu, op, state.CURRENT_OP);
    // Alignment is checked, and data watched, by elements.
    f.if(checksAlignment(vcpu).or(watchesData(vcpu)), () => f.return(MMIO));
    f.return(f.call(fill, vcpu, address, userBit(vcpu).or(write)));
  }

  /** (vcpu, rip) -> the block's first operation with CODE_BASE set for it, or 0: leave to the run loop. */
  const lookup = module.function('lookup', { parameters: ['i32', 'i64'], results: ['i32'] });
  {
    const f = lookup;
    const [vcpu, rip] = [f.parameter(0), f.parameter(1)];
    const context = f.let(vcpu.load('i32.load', state.TLB_BASE));
    const entry = jumpEntry(f, vcpu, rip);
    const block = f.let(jumpBlock(entry));
    const live = block.nonZero().and(block.load('i32.load16_u', L.OP_HANDLER).ne(imports.staleHandler));
    const key = f.let(rip.or(vcpu.load('i64.load', state.CODE_KEY)));
    const codeMode = f.let(vcpu.load('i32.load', state.CODE_MODE));
    const mode = f.let(codeMode.or(context.load('i32.load', L.CONTEXT_GENERATION)));
    f.if(jumpHit(entry, key, mode).and(live), () => {
      f.store('i64.store', vcpu, rip.sub(block.load('i64.load16_u', L.OP_IP)), state.CODE_BASE);
      f.return(block);
    });
    const noteCodePage = (target: Expression): void => {
      const page = f.let(target.shrU(12).wrap());
      const note = (place: Expression, at: number, bits: number): void => {
        const bit = f.let(page.and(bits - 1));
        const word = f.let(place.add(bit.shrU(5).shl(2)));
        f.store('i32.store', word, word.load('i32.load', at).or(i32(1).shl(bit)), at);
      };
      f.if(
        vcpu.load('i32.load', state.CPL).eq(3),
        () => note(context, L.CONTEXT_JUMP_PAGES, L.JUMP_PAGE_BITS),
        () => f.if(target.geS(0), () => note(vcpu, L.SUPERVISOR_JUMP_PAGES, L.SUPERVISOR_PAGE_BITS)),
      );
    };
    const noteLocalCode = (): void =>
      f.store('i32.store', vcpu, vcpu.load('i32.load', state.TLB_TRAITS).or(state.TRAIT_LOCAL_CODE), state.TLB_TRAITS);
    const remember = (found: Expression): void => {
      // In legacy modes the target lies relative to CS.
      noteCodePage(f.let(rip.add(vcpu.load('i64.load', state.CODE_KEY).shrU(32))));
      f.store('i64.store', entry, key, L.JUMP_CACHE);
      f.store('i32.store', entry, found, L.JUMP_CACHE + 8);
      f.store('i32.store', entry, mode, L.JUMP_CACHE + 12);
      f.store('i64.store', vcpu, rip.sub(found.load('i64.load16_u', L.OP_IP)), state.CODE_BASE);
      f.return(found);
    };
    // Code that is known by its place in RAM: another address space's, or what a flush made the cache forget.
    // Pages with breakpoints are not gone through by blocks.
    const byBlocks = f.let(codeMode.and(state.CODE_64).nonZero().and(vcpu.load('i32.load', state.BREAKPOINTS).and(state.CODE_BREAKPOINTS).eqz()));
    f.if(byBlocks.eqz().or(codeMode.ne(state.CODE_64)), noteLocalCode);
    f.if(byBlocks, () => {
      const codePage = f.let(rip.and(-4096));
      const cached = f.let(vcpu.add(rip.shrU(12).wrap().and(L.CODE_TLB_ENTRIES - 1).mul(L.CODE_TLB_ENTRY_SIZE)));
      const generation = f.let(context.load('i32.load', L.CONTEXT_GENERATION));
      const isCached = cached.load('i64.load', L.CODE_TLB).eq(codePage).and(cached.load('i32.load', L.CODE_TLB + 8).eq(generation));
      const linear = f.local('i32');
      f.if(
        isCached,
        () => f.set(linear, cached.load('i32.load', L.CODE_TLB + 12).add(rip.wrap().and(0xfff))),
        () => {
          f.set(linear, f.call(fill, vcpu, rip, userBit(vcpu).or(Access.execute | Access.quiet)));
          f.if(f.get(linear).eq(FAULTED), () => {
            f.store('i64.store', vcpu, rip, state.RIP);
            f.store('i32.store', vcpu, 0, state.CURRENT_OP);
            f.if(f.call(takeFault, vcpu, i32(0)), () => f.return(0));
          });
          f.if(f.get(linear).ne(FAULTED).and(f.get(linear).ne(MMIO)), () => {
            noteCodePage(rip);
            f.if(vcpu.load('i32.load', state.WALK_GLOBAL).eqz(), () => f.if(vcpu.load('i32.load', state.CPL).ne(3), noteLocalCode));
            f.store('i64.store', cached, codePage, L.CODE_TLB);
            f.store('i32.store', cached, generation, L.CODE_TLB + 8);
            f.store('i32.store', cached, f.get(linear).and(-4096), L.CODE_TLB + 12);
          });
        },
      );
      const slot = f.let(f.get(linear).mul(L.BLOCK_HASH).shrU(L.BLOCK_HASH_SHIFT).mul(L.BLOCK_ENTRY_SIZE).add(layout.blockTable));
      for (const entry of [slot, f.let(slot.xor(L.BLOCK_ENTRY_SIZE))]) {
        const known = f.let(entry.load('i32.load', 8));
        const fits = entry.load('i32.load').eq(f.get(linear)).and(entry.load('i32.load', 4).eq(codeMode)).and(known.nonZero());
        f.if(fits, () => f.if(known.load('i32.load16_u', L.OP_HANDLER).ne(imports.staleHandler), () => remember(known)));
      }
    });
    f.store('i64.store', vcpu, rip, state.RIP);
    f.store('i32.store', vcpu, 0, state.CURRENT_OP);
    const found = f.call(imports.resolve, vcpu);
    f.if(found, () => remember(found));
    f.return(found);
  }

  /** `refused` is built for what the segment does not allow. */
  const buildSegmentAddress = (f: FunctionBuilder, refused: (vcpu: Expression, slot: Expression) => void): void => {
    const [vcpu, op, slot, offset, bytes, write] = [0, 1, 2, 3, 4, 5].map((i) => f.parameter(i));
    const segment = f.let(vcpu.add(slot));
    const last = offset.add(bytes.extendU()).sub(1);
    const beyond = last.gtU(segment.load('i64.load32_u', state.SEGMENT_LIMIT));
    f.if(beyond.or(segment.load('i32.load', state.SEGMENT_ACCESS).shrU(write).and(1).eqz()), () => {
      f.store('i64.store', vcpu, offset, state.ARGUMENT);
      f.store('i32.store', vcpu, op, state.CURRENT_OP);
      f.if(f.call(imports.segmentAllows, vcpu, slot, bytes, write).eqz(), () => refused(vcpu, slot));
    });
    f.return(segment.load('i64.load', state.SEGMENT_BASE).add(offset).and(0xffff_ffff));
  };
  const segmentAddress = { parameters: ['i32', 'i32', 'i32', 'i64', 'i32', 'i32'], results: ['i64'] } as const;
  /** (vcpu, op, segment, offset, bytes, write) -> guest-virtual address in a segment (offset of its state) of a legacy mode, checked. */
  const segmentLinear = module.function('segment_linear', segmentAddress);
  buildSegmentAddress(segmentLinear, (vcpu, slot) => {
    segmentLinear.call(imports.raise, vcpu, select(slot.eq(state.SS), i32(STACK_FAULT), i32(GENERAL_PROTECTION)), i32(0));
  });
  /** The same for an operand that the instruction accesses later: what is refused gets an address that faults then, after all that comes first. */
  const operandLinear = module.function('operand_linear', segmentAddress);
  buildSegmentAddress(operandLinear, () => operandLinear.return(i64(UNREACHABLE)));

  /** (vcpu, op, offset, bytes) -> guest-virtual address of that many bytes of the stack at SP + offset in a legacy mode, checked. */
  const stackLinear = module.function('stack_linear', { parameters: ['i32', 'i32', 'i32', 'i32'], results: ['i64'] });
  {
    const f = stackLinear;
    const [vcpu, op, displacement, bytes] = [0, 1, 2, 3].map((i) => f.parameter(i));
    const sp = f.let(vcpu.load('i32.load', state.RSP).add(displacement));
    const big = vcpu.load('i32.load', state.SS + state.SEGMENT_ATTRIBUTES).and(1 << 22);
    const offset = f.let(apply('i64.extend_i32_u', select(big, sp, sp.and(0xffff))));
    f.returnCall(segmentLinear, vcpu, op, i32(state.SS), offset, bytes, i32(1));
  }

  /**
   * (vcpu, op, codeBase) -> 1 where an instruction across pages (`op` is its page check) of flat code in the page at `codeBase` still goes on where
   * it did when it was decoded; 0 where it does not, or where that takes a closer look.
   */
  const sameSecondPage = module.function('same_second_page', { parameters: ['i32', 'i32', 'i64'], results: ['i32'] });
  {
    const f = sameSecondPage;
    const [vcpu, op, codeBase] = [f.parameter(0), f.parameter(1), f.parameter(2)];
    const next = f.local('i64');
    f.set(next, codeBase.add(4096));
    f.if(vcpu.load('i32.load', state.CODE_MODE).ne(state.CODE_64), () => f.set(next, f.get(next).zeroExtend(32)));
    const linear = f.call(fill, vcpu, f.get(next), userBit(vcpu).or(Access.execute | Access.quiet));
    f.return(linear.eq(op.load('i32.load', L.OP_IMMEDIATE)).and(linear.ne(MMIO)));
  }

  /** (vcpu, op) -> 1 where an instruction across pages still goes on where it did when it was decoded (`op` is its page check). */
  const checkPage = module.function('check_page', { parameters: ['i32', 'i32'], results: ['i32'] });
  {
    const f = checkPage;
    const [vcpu, op] = [f.parameter(0), f.parameter(1)];
    const flat = vcpu.load('i32.load', state.CODE_MODE).and(state.CODE_64).nonZero();
    f.if(flat, () => f.if(f.call(sameSecondPage, vcpu, op, vcpu.load('i64.load', state.CODE_BASE)), () => f.return(i32(1))));
    f.returnCall(imports.checkPage, vcpu, op);
  }

  return { fill, readSlow, writeSlow, bulk, codeCheck, lookup, checkPage, sameSecondPage, enterHandler, segmentLinear, operandLinear, stackLinear };
}
