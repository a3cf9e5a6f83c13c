/**
 * Layout of a vCPU's architectural state in linear memory, by byte offset from the vCPU's base. The engine's
 * generated code, its helpers and the `Vcpu` class all use these names; nothing else knows the numbers.
 */

/** RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15 in the order of their encodings, 8 bytes each. */
export const GPR = 0;
export const RAX = GPR;
export const RCX = GPR + 8;
export const RDX = GPR + 16;
export const RBX = GPR + 24;
export const RSP = GPR + 32;
export const RBP = GPR + 40;
export const RSI = GPR + 48;
export const RDI = GPR + 56;
export const R8 = GPR + 64;
export const R11 = GPR + 88;

/** Slots that decoded operands name like registers. */
export const ZERO = 128; // always 0: an absent base or index
export const CODE_BASE = 136; // guest-virtual address (RIP, without CS base) of the page the code is running in
export const EFFECTIVE_ADDRESS = 144; // made by an address micro-operation for the operation after it

/**
 * Status flags, lazily: ZF = (FLAG_ZERO == 0); SF = bit 63 and PF = even parity of the low byte of FLAG_SIGN;
 * CF = bit 63 and AF = bit 3 of FLAG_CARRY; OF = bit 63 of FLAG_OVERFLOW. All other bits are noise.
 */
export const FLAG_ZERO = 152;
export const FLAG_SIGN = 160;
export const FLAG_CARRY = 168;
export const FLAG_OVERFLOW = 176;
/** RFLAGS without the six status flags (CF, PF, AF, ZF, SF, OF read as 0 here), bit 1 always set. */
export const RFLAGS = 184;

/** Instructions the slice may still run, counted down a block at a time; an i32. At 0 or below the next block is not entered. */
export const BUDGET = 192;
/** The decoded operation that is running, stored before anything that may fault or look at RIP; an i32. */
export const CURRENT_OP = 200;
/** RIP, true only outside of generated code (and while a helper that synchronised it runs). */
export const RIP = 208;
/** Cycles of this vCPU that are no instructions: charged or slept. An i64. */
export const CHARGED = 216;
/** Linear address of the TLB in use, an i32: changes with CPL, RFLAGS.AC under SMAP, CR3's PCID, CR0/CR4. */
export const TLB_BASE = 224;
/** Mode of the code that runs, an i32: what decoded code is keyed by besides its address. */
export const CODE_MODE = 228;
export const CODE_16 = 16;
export const CODE_32 = 32;
export const CODE_64 = 64;
/** 32-bit code whose CS, DS, ES and SS all are flat (base 0, limit 4 GiB, writable, a 32-bit stack): addresses need no segments. */
export const CODE_32_FLAT = 96;
export const CPL = 232; // i32
/** Non-zero: interrupts are looked at before the next instruction (STI, POPF, MOV SS, CR8, IRET made them possible). i32 */
export const EVENT_PENDING = 236;
/** Interrupt shadow: 1 while the instruction after STI or MOV SS runs. i32 */
export const INTERRUPT_SHADOW = 240;
export const ACTIVITY = 244; // i32, 0 running, 1 halted, 2 waiting for SIPI, 3 shut down

/** Linear address of the translation contexts of the address space in use; TLB_BASE is one of them. i32 */
export const TLB_SLOT = 248;
/** What kinds of pages the TLBs hold, as bits: what a page's invalidation has to reckon with. i32 */
export const TLB_TRAITS = 252;
export const TRAIT_LARGE_USER = 1;
export const TRAIT_LARGE_KERNEL = 2;
export const TRAIT_GLOBAL_USER = 4;
/** Supervisor mode's code was found in a page that is not global: another address space may have other code there. */
export const TRAIT_LOCAL_CODE = 8;

/** XMM0 to XMM15, 16 bytes each, 16-byte aligned. */
export const XMM = 256;
export const MXCSR = 512; // i32
/** Non-zero: the run loop runs the next instruction by itself, with every check that blocks leave out. i32 */
export const STEP_NEXT = 516;

/** x87: eight physical registers (ST(i) is (TOP + i) & 7), 16 bytes each, the 80-bit image in the first 10; MMX is its low 8. */
export const FPR = 528;
/** Sign and exponent of a register that MMX has written. */
export const MMX_EXPONENT = 0xffff;
export const FCW = 656; // u16 at an i32
export const FSW = 660; // u16 at an i32, TOP included
export const FSW_TOP = 7 << 11;
/** One bit for each physical register, 1 = in use (the FXSAVE form of the tag word). i32 */
export const FTW = 664;
export const FOP = 668; // i32
export const FIP = 672; // i64
export const FDP = 680; // i64
export const FCS = 688; // i32
export const FDS = 692; // i32

/**
 * Segment registers in the order of their encodings (ES, CS, SS, DS, FS, GS), then LDTR and TR. For each: base (i64),
 * limit in bytes (i32), selector (i32), attributes (i32, bits 8–15 and 20–23 of a descriptor's high word at the same places), and
 * what may be done between base and limit without a closer look (i32, derived in cpu/segments.ts).
 */
export const SEGMENT = 704;
export const SEGMENT_SIZE = 32;
export const SEGMENT_BASE = 0;
export const SEGMENT_LIMIT = 8;
export const SEGMENT_SELECTOR = 12;
export const SEGMENT_ATTRIBUTES = 16;
export const SEGMENT_ACCESS = 20;
export const READABLE = 1;
export const WRITABLE = 2;
export const ES = SEGMENT;
export const CS = SEGMENT + SEGMENT_SIZE;
export const SS = SEGMENT + 2 * SEGMENT_SIZE;
export const DS = SEGMENT + 3 * SEGMENT_SIZE;
export const FS = SEGMENT + 4 * SEGMENT_SIZE;
export const GS = SEGMENT + 5 * SEGMENT_SIZE;
export const LDTR = SEGMENT + 6 * SEGMENT_SIZE;
export const TR = SEGMENT + 7 * SEGMENT_SIZE;

/** Descriptor table registers: base i64, limit i32. */
export const GDTR_BASE = 960;
export const GDTR_LIMIT = 968;
export const IDTR_BASE = 976;
export const IDTR_LIMIT = 984;

export const CR0 = 992; // i64 each
export const CR2 = 1000;
export const CR3 = 1008;
export const CR4 = 1016;
export const EFER = 1024;
export const STAR = 1032;
export const LSTAR = 1040;
export const CSTAR = 1048;
export const SFMASK = 1056;
export const KERNEL_GS_BASE = 1064;
export const TSC_AUX = 1072;
export const SYSENTER_CS = 1080;
export const SYSENTER_ESP = 1088;
export const SYSENTER_EIP = 1096;
export const PAT = 1104;
export const TSC_OFFSET = 1112; // i64, what WRMSR of the TSC or TSC_ADJUST added
export const XCR0 = 1120;
export const DR = 1128; // DR0 to DR7, i64 each

/** 32 bytes for slow memory accesses that are put together from pieces. */
export const BOUNCE = 1216;
/** Values crossing into TypeScript without BigInt: four i64 slots. */
export const ARGUMENT = 1248;
/** Guest-physical address of the last page walk, an i64: where an MMIO access goes. */
export const PHYSICAL = 1280;
/** PAE paging's four page-directory pointers, i64 each: registers that are loaded with CR3 (control-registers.ts). */
export const PDPTE = 1296;
/** What tells jump targets of the same RIP apart: in legacy modes CS's base in the upper half, an i64. */
export const CODE_KEY = 1328;
/** Non-zero from an NMI's delivery to the next IRET. i32 */
export const NMI_BLOCKED = 1336;
/** What DR7 arms, as bits, an i32: breakpoints of instructions, data and ports (engine/debug-unit.ts). */
export const BREAKPOINTS = 1340;
export const CODE_BREAKPOINTS = 1;
export const DATA_BREAKPOINTS = 2;
export const PORT_BREAKPOINTS = 4;
/** Not DR7's: every instruction and every access to data is reported (engine/instruction-watcher.ts). */
export const WATCHED = 8;

/** BUDGET and what the running block has not done yet below this: the instructions the vCPU has retired. An i64, true while it runs. */
export const RETIRED_BASE = 1344;
/** Instructions retired at the last fault (an i64), and how many faults have come since without one between them (an i32). */
export const LAST_FAULT = 1352;
export const FRUITLESS_FAULTS = 1360;
/** Error code of the page fault that a quiet walk met, -1 for a non-canonical address. i32 */
export const FAULT_CODE = 1364;
/**
 * How far to shift an address up and back to see whether it is canonical: 16, or under CR4.LA57 7; and what bases of segments and tables and
 * MSRs must be, which goes by what the processor has. i64 each.
 */
export const CANONICAL_SHIFT = 1376;
export const BASE_CANONICAL_SHIFT = 1384;
/** Non-zero while generated code may deliver page faults by itself: not while an instruction runs alone. i32 */
export const TAKES_FAULTS = 1368;

/** Non-zero where the page that the last walk found is global. i32 */
export const WALK_GLOBAL = 1372;

export const VCPU_STATE_SIZE = 2048;
