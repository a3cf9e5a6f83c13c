/**
 * A Linux kernel's own code, as PVH loads it: where it is told to be, not moved about (that is what its decompressor does). 64-bit.
 * Source: Linux's arch/x86/kernel/vmlinux.lds.S.
 */
import { Decoder } from '../../isa/decoder.ts';
import type { SymbolTable } from '../symbol-table.ts';
import { isBzImage, parseBzImage } from './bzimage.ts';
import { type ElfSegment, parseElf } from './elf.ts';
import { kernelSymbols } from './kallsyms.ts';
import { extractVmlinux } from './kernel-payload.ts';

export interface LinuxImage {
  symbols: SymbolTable;
  segments: ElfSegment[];
  /** Of an address in the kernel's image. */
  guestPhysical(guestVirtual: bigint): number;
}

/** __START_KERNEL_map. */
const KERNEL_MAP = 0xffff_ffff_8000_0000n;
/** All thunks together: the first of them has a name of its own. */
const SECOND_NAMES = new Set(['__x86_indirect_thunk_array']);
const MOV_EDI = 0xbf;
/** Between an argument and the call lie the other argument and the function's address. */
const INSTRUCTIONS_TO_CALL = 8;
const MOST_BYTES = 15;

/** Of a bzImage or a vmlinux. Throws a BootError where it is corrupt, or carries no symbols. */
export function linuxImage(kernel: Uint8Array): LinuxImage {
  const vmlinux = isBzImage(kernel) ? extractVmlinux(parseBzImage(kernel)) : kernel;
  const { segments } = parseElf(vmlinux);
  return { segments, symbols: kernelSymbols(vmlinux, SECOND_NAMES), guestPhysical: (guestVirtual) => Number(guestVirtual - KERNEL_MAP) };
}

/** A call of a function whose address the guest looks up, maybe the last thing that a function does. */
export interface IndirectCall {
  address: bigint;
  kind: 'call' | 'jump';
}

/**
 * The indirect calls that follow right behind `mov edi, argument`: through a pointer, or (as kernels with retpolines are linked) of a
 * thunk.
 */
export function linuxCalls({ segments }: LinuxImage, argument: number, isThunk: (address: bigint) => boolean): IndirectCall[] {
  const decoder = new Decoder();
  const pattern = Uint8Array.of(MOV_EDI, argument & 0xff, (argument >> 8) & 0xff, (argument >> 16) & 0xff, argument >>> 24);
  const found: IndirectCall[] = [];
  for (const { data, guestPhysical } of segments) {
    for (let at = data.indexOf(MOV_EDI); at >= 0; at = data.indexOf(MOV_EDI, at + 1)) {
      if (!pattern.every((byte, i) => data[at + i] === byte)) continue;
      const call = callBehind(at);
      if (call) found.push(call);
    }

    function callBehind(start: number): IndirectCall | undefined {
      let at = start;
      for (let i = 0; i < INSTRUCTIONS_TO_CALL; i++) {
        if (decoder.decode(data, at, Math.min(MOST_BYTES, data.length - at), 64) !== 'ok') return undefined;
        const { form, length, immediate } = decoder.result;
        const { mnemonic, ends } = form.instruction;
        if (mnemonic === 'CALL' || mnemonic === 'JMP') {
          const isDirect = form.encoding.operands[0].code === 'J';
          const address = KERNEL_MAP + BigInt(guestPhysical + at);
          if (isDirect && !isThunk(address + BigInt(length + immediate))) return undefined;
          return { address, kind: mnemonic === 'CALL' ? 'call' : 'jump' };
        }
        if (ends === 'block') return undefined;
        at += length;
      }
      return undefined;
    }
  }
  return found;
}
