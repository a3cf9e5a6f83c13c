/**
 * What the oracle records: the user-mode instructions of x86-64-v2 as the opcode map has them (SDM 2D appendix A, APM 3
 * appendix A), in the notation of src/isa/encoding.ts but written independently of the engine's definitions, so that the
 * two check each other. Left out because their outcome isn't a function of the state: CPUID, RDTSC(P), RDRAND, SYSCALL,
 * SYSENTER, INT n, what the kernel emulates under UMIP (SGDT, SIDT, SLDT, SMSW, STR), what loads segments, far transfers
 * and IRET among it, and XGETBV.
 */

import type { Profile } from '../conformance/machine-state.ts';
import { type Encoding, parseEncoding } from '../../src/isa/encoding.ts';

export interface Form {
  /** Like `ADD Ev,Gv/32/mem`. */
  id: string;
  mnemonic: string;
  encoding: Encoding;
  /** Operand size in bits, 0 where the encoding has none. */
  size: 0 | 16 | 32 | 64;
  /** What ModRM.rm is: a register, memory, or nothing (no such operand). */
  kind: 'reg' | 'mem' | 'none';
  /** Legacy prefixes that belong to the form (LOCK, REP, REPNE, 67h). */
  prefixes: readonly number[];
  profile: Profile;
  /** #UD by itself: few cases suffice. */
  illegal: boolean;
}

/** A form given by its bytes rather than by an encoding. */
export interface LiteralForm {
  form: string;
  bytes: string;
  profile?: Profile;
  /** Where the code starts in its window, if that matters. */
  codeOffset?: number;
}

export interface Family {
  /** Name of its vector file. */
  name: string;
  forms: Form[];
  literals: LiteralForm[];
  /** Features beyond x86-64-v2 that its recording needs, and the vendor whose behaviour it is, where they differ. */
  features?: string[];
  vendor?: string;
}

const CONDITIONS = ['O', 'NO', 'B', 'NB', 'Z', 'NZ', 'BE', 'NBE', 'S', 'NS', 'P', 'NP', 'L', 'NL', 'LE', 'NLE'];
const hex = (value: number): string => value.toString(16).toUpperCase().padStart(2, '0');
const conditional = (line: (condition: string, opcode: (base: number) => string) => string): string[] =>
  CONDITIONS.map((condition, i) => line(condition, (base) => hex(base + i)));

// Lines are "MNEMONIC attributes: encoding | encoding …". Attributes: lock (LOCK is legal with a memory destination),
// nolock (LOCK is tried and must be #UD), illegal (#UD itself), f32, f64, f80, text (how operands are filled), rep, repe
// (prefixes that repeat).

const ALU = [
  ...['ADD', 'OR', 'ADC', 'SBB', 'AND', 'SUB', 'XOR', 'CMP'].map((mnemonic, i) => {
    const row = (column: number): string => hex(8 * i + column);
    const plain = `${row(0)} Eb Gb | ${row(1)} Ev Gv | ${row(2)} Gb Eb | ${row(3)} Gv Ev | ${row(4)} AL Ib | ${row(5)} eAX Iz`;
    return `${mnemonic} ${mnemonic === 'CMP' ? 'nolock' : 'lock'}: ${plain} | 80/${i} Eb Ib | 81/${i} Ev Iz | 83/${i} Ev sIb`;
  }),
  'TEST nolock: 84 Eb Gb | 85 Ev Gv | A8 AL Ib | A9 eAX Iz | F6/0 Eb Ib | F7/0 Ev Iz | F6/1 Eb Ib | F7/1 Ev Iz',
  'INC lock: FE/0 Eb | FF/0 Ev', 'DEC lock: FE/1 Eb | FF/1 Ev',
  'NOT lock: F6/2 Eb | F7/2 Ev', 'NEG lock: F6/3 Eb | F7/3 Ev',
  'MUL: F6/4 Eb | F7/4 Ev', 'IMUL: F6/5 Eb | F7/5 Ev | 0F AF Gv Ev | 69 Gv Ev Iz | 6B Gv Ev sIb',
  'DIV: F6/6 Eb | F7/6 Ev', 'IDIV: F6/7 Eb | F7/7 Ev',
  'XADD lock: 0F C0 Eb Gb | 0F C1 Ev Gv', 'CMPXCHG lock: 0F B0 Eb Gb | 0F B1 Ev Gv',
  'CMPXCHG8B lock: 0F C7/1 Mq ; W0', 'CMPXCHG16B lock: 0F C7/1 Mdq ; W1',
  'CRC32: F2 0F 38 F0 Gy Eb | F2 0F 38 F1 Gy Ev', 'POPCNT: F3 0F B8 Gv Ev',
];

const SHIFT = [
  ...['ROL', 'ROR', 'RCL', 'RCR', 'SHL', 'SHR', 'SAL', 'SAR'].map((mnemonic, i) =>
    `${mnemonic}: C0/${i} Eb Ib | C1/${i} Ev Ib | D0/${i} Eb 1 | D1/${i} Ev 1 | D2/${i} Eb CL | D3/${i} Ev CL`),
  'SHLD: 0F A4 Ev Gv Ib | 0F A5 Ev Gv CL', 'SHRD: 0F AC Ev Gv Ib | 0F AD Ev Gv CL',
  'BT nolock: 0F A3 Ev Gv | 0F BA/4 Ev Ib', 'BTS lock: 0F AB Ev Gv | 0F BA/5 Ev Ib',
  'BTR lock: 0F B3 Ev Gv | 0F BA/6 Ev Ib', 'BTC lock: 0F BB Ev Gv | 0F BA/7 Ev Ib',
  'BSF: 0F BC Gv Ev', 'BSR: 0F BD Gv Ev',
];

const MOVE = [
  'MOV nolock: 88 Eb Gb | 89 Ev Gv | 8A Gb Eb | 8B Gv Ev | A0 AL Ob | A1 eAX Ov | A2 Ob AL | A3 Ov eAX',
  'MOV: B0+ Zb Ib | B8+ Zv Iv | C6/0 Eb Ib | C7/0 Ev Iz | 8C Ev Sw',
  'MOVZX: 0F B6 Gv Eb | 0F B7 Gv Ew', 'MOVSX: 0F BE Gv Eb | 0F BF Gv Ew', 'MOVSXD: 63 Gv Ed',
  'XCHG lock: 86 Eb Gb | 87 Ev Gv', 'XCHG: 90+ Zv eAX', 'BSWAP: 0F C8+ Zv', 'LEA: 8D Gv M', 'MOVNTI: NP 0F C3 My Gy',
  'CBW: 98 ; s16', 'CWDE: 98 ; s32', 'CDQE: 98 ; s64', 'CWD: 99 ; s16', 'CDQ: 99 ; s32', 'CQO: 99 ; s64',
  'LAHF: 9F', 'SAHF: 9E', 'CMC: F5', 'CLC: F8', 'STC: F9', 'CLD: FC', 'STD: FD', 'XLAT: D7',
  'NOP: 0F 1F/0 Ev | 0F 19 Ev | 0F 1A Ev | 0F 1B Ev | 0F 1C Ev | 0F 1D Ev | 0F 1E Ev | 0F 18 Ev', 'PAUSE: F3 90',
  'PREFETCHW: 0F 0D/1 Mb',
  'PREFETCHNTA: 0F 18/0 Mb', 'PREFETCHT0: 0F 18/1 Mb', 'PREFETCHT1: 0F 18/2 Mb', 'PREFETCHT2: 0F 18/3 Mb',
  ...conditional((condition, opcode) => `CMOV${condition}: 0F ${opcode(0x40)} Gv Ev`),
  ...conditional((condition, opcode) => `SET${condition}: 0F ${opcode(0x90)}/0 Eb`),
];

const STACK = [
  'PUSH: 50+ Zv ; d64', 'PUSH: 68 Iz ; d64 | 6A sIb ; d64 | FF/6 Ev ; d64 | 0F A0 ; d64 | 0F A8 ; d64',
  'POP: 58+ Zv ; d64 | 8F/0 Ev ; d64', 'PUSHF: 9C ; d64', 'POPF: 9D ; d64', 'ENTER: C8 Iw Ib ; d64', 'LEAVE: C9 ; d64',
];

const STRING = [
  'MOVS rep: A4 Xb Yb | A5 Xv Yv', 'STOS rep: AA Yb AL | AB Yv eAX', 'LODS rep: AC AL Xb | AD eAX Xv',
  'CMPS repe: A6 Xb Yb | A7 Xv Yv', 'SCAS repe: AE AL Yb | AF eAX Yv',
];

const CONTROL = [
  ...conditional((condition, opcode) => `J${condition}: ${opcode(0x70)} Jb ; f64 | 0F ${opcode(0x80)} Jz ; f64`),
  'JMP: EB Jb ; f64 | E9 Jz ; f64 | FF/4 Ev ; f64', 'CALL: E8 Jz ; f64 | FF/2 Ev ; f64', 'RET: C3 ; f64 | C2 Iw ; f64',
  'LOOPNE: E0 Jb ; f64', 'LOOPE: E1 Jb ; f64', 'LOOP: E2 Jb ; f64', 'JRCXZ: E3 Jb ; f64',
  'INT3: CC', 'UD2: 0F 0B', 'UD1 illegal: 0F B9 Gv Ev', 'UD0 illegal: 0F FF Gv Ev',
];

/** Raise #GP at CPL 3 (IOPL 0, no I/O permission bitmap). */
const PRIVILEGED = [
  'HLT: F4', 'CLI: FA', 'STI: FB', 'INVD: 0F 08', 'WBINVD: 0F 09', 'CLTS: 0F 06', 'RDMSR: 0F 32', 'WRMSR: 0F 30',
  'SWAPGS: 0F 01 F8', 'INVLPG: 0F 01/7 M', 'LGDT: 0F 01/2 M ; s16 s32 s64', 'LIDT: 0F 01/3 M ; s16 s32 s64', 'LMSW: 0F 01/6 Ew', 'LLDT: 0F 00/2 Ew',
  'LTR: 0F 00/3 Ew', 'IN: E4 AL Ib | E5 eAX Ib | EC AL DX | ED eAX DX', 'OUT: E6 Ib AL | E7 Ib eAX | EE DX AL | EF DX eAX',
  'INS rep: 6C Yb DX | 6D Yz DX', 'OUTS rep: 6E DX Xb | 6F DX Xz', 'SYSRET: 0F 07 ; s16 | 0F 07 ; s32 | 0F 07 ; s64',
];

/** PS, PD, SS and SD under one opcode; or, of the approximations, PS and SS. */
function byPrecision(entry: string, operands = '', precisions = ['PS', 'PD', 'SS', 'SD']): string[] {
  const [name, opcode] = entry.split(' ');
  const prefix: Record<string, string> = { PS: 'NP', PD: '66', SS: 'F3', SD: 'F2' };
  return precisions.map((p) => {
    const suffix = p.toLowerCase();
    return `${name}${p} ${p.endsWith('S') ? 'f32' : 'f64'}: ${prefix[p]} 0F ${opcode} V${suffix} W${suffix}${operands}`;
  });
}

const SSE_FLOAT = [
  ...['ADD 58', 'MUL 59', 'SUB 5C', 'MIN 5D', 'DIV 5E', 'MAX 5F', 'SQRT 51'].flatMap((entry) => byPrecision(entry)),
  ...byPrecision('RSQRT 52', '', ['PS', 'SS']), ...byPrecision('RCP 53', '', ['PS', 'SS']),
  ...byPrecision('CMP C2', ' Ib'),
  'UCOMISS f32: NP 0F 2E Vss Wss', 'UCOMISD f64: 66 0F 2E Vsd Wsd', 'COMISS f32: NP 0F 2F Vss Wss',
  'COMISD f64: 66 0F 2F Vsd Wsd', 'ADDSUBPS f32: F2 0F D0 Vps Wps', 'ADDSUBPD f64: 66 0F D0 Vpd Wpd',
  'HADDPS f32: F2 0F 7C Vps Wps', 'HADDPD f64: 66 0F 7C Vpd Wpd', 'HSUBPS f32: F2 0F 7D Vps Wps',
  'HSUBPD f64: 66 0F 7D Vpd Wpd', 'CVTPI2PS: NP 0F 2A Vps Qpi', 'CVTPI2PD: 66 0F 2A Vpd Qpi', 'CVTSI2SS: F3 0F 2A Vss Ey',
  'CVTSI2SD: F2 0F 2A Vsd Ey', 'CVTTPS2PI f32: NP 0F 2C Ppi Wq', 'CVTTPD2PI f64: 66 0F 2C Ppi Wpd',
  'CVTTSS2SI f32: F3 0F 2C Gy Wss', 'CVTTSD2SI f64: F2 0F 2C Gy Wsd', 'CVTPS2PI f32: NP 0F 2D Ppi Wq',
  'CVTPD2PI f64: 66 0F 2D Ppi Wpd', 'CVTSS2SI f32: F3 0F 2D Gy Wss', 'CVTSD2SI f64: F2 0F 2D Gy Wsd',
  'CVTPS2PD f32: NP 0F 5A Vpd Wq', 'CVTPD2PS f64: 66 0F 5A Vps Wpd', 'CVTSS2SD f32: F3 0F 5A Vsd Wss',
  'CVTSD2SS f64: F2 0F 5A Vss Wsd', 'CVTDQ2PS: NP 0F 5B Vps Wdq', 'CVTPS2DQ f32: 66 0F 5B Vdq Wps',
  'CVTTPS2DQ f32: F3 0F 5B Vdq Wps', 'CVTTPD2DQ f64: 66 0F E6 Vdq Wpd', 'CVTDQ2PD: F3 0F E6 Vpd Wq',
  'CVTPD2DQ f64: F2 0F E6 Vdq Wpd', 'ROUNDPS f32: 66 0F 3A 08 Vps Wps Ib', 'ROUNDPD f64: 66 0F 3A 09 Vpd Wpd Ib',
  'ROUNDSS f32: 66 0F 3A 0A Vss Wss Ib', 'ROUNDSD f64: 66 0F 3A 0B Vsd Wsd Ib', 'DPPS f32: 66 0F 3A 40 Vps Wps Ib',
  'DPPD f64: 66 0F 3A 41 Vpd Wpd Ib', 'LDMXCSR: NP 0F AE/2 Md', 'STMXCSR: NP 0F AE/3 Md',
];

const SSE_MOVE = [
  'MOVUPS: NP 0F 10 Vps Wps | NP 0F 11 Wps Vps', 'MOVUPD: 66 0F 10 Vpd Wpd | 66 0F 11 Wpd Vpd',
  'MOVSS: F3 0F 10 Vss Wss | F3 0F 11 Wss Vss', 'MOVSD: F2 0F 10 Vsd Wsd | F2 0F 11 Wsd Vsd',
  'MOVLPS: NP 0F 12 Vq Mq | NP 0F 13 Mq Vq', 'MOVHLPS: NP 0F 12 Vq Uq', 'MOVLPD: 66 0F 12 Vq Mq | 66 0F 13 Mq Vq',
  'MOVHPS: NP 0F 16 Vq Mq | NP 0F 17 Mq Vq', 'MOVLHPS: NP 0F 16 Vq Uq', 'MOVHPD: 66 0F 16 Vq Mq | 66 0F 17 Mq Vq',
  'MOVSLDUP: F3 0F 12 Vps Wps', 'MOVSHDUP: F3 0F 16 Vps Wps', 'MOVDDUP: F2 0F 12 Vpd Wq',
  'MOVAPS: NP 0F 28 Vps Wps | NP 0F 29 Wps Vps', 'MOVAPD: 66 0F 28 Vpd Wpd | 66 0F 29 Wpd Vpd', 'MOVNTPS: NP 0F 2B Mdq Vps',
  'MOVNTPD: 66 0F 2B Mdq Vpd', 'MOVMSKPS: NP 0F 50 Gy Ups', 'MOVMSKPD: 66 0F 50 Gy Upd', 'UNPCKLPS: NP 0F 14 Vps Wps',
  'UNPCKLPD: 66 0F 14 Vpd Wpd', 'UNPCKHPS: NP 0F 15 Vps Wps', 'UNPCKHPD: 66 0F 15 Vpd Wpd', 'ANDPS: NP 0F 54 Vps Wps',
  'ANDPD: 66 0F 54 Vpd Wpd', 'ANDNPS: NP 0F 55 Vps Wps', 'ANDNPD: 66 0F 55 Vpd Wpd', 'ORPS: NP 0F 56 Vps Wps',
  'ORPD: 66 0F 56 Vpd Wpd', 'XORPS: NP 0F 57 Vps Wps', 'XORPD: 66 0F 57 Vpd Wpd', 'SHUFPS: NP 0F C6 Vps Wps Ib',
  'SHUFPD: 66 0F C6 Vpd Wpd Ib', 'MOVD: 66 0F 6E Vdq Ey | 66 0F 7E Ey Vdq', 'MOVQ: F3 0F 7E Vq Wq | 66 0F D6 Wq Vq',
  'MOVDQA: 66 0F 6F Vdq Wdq | 66 0F 7F Wdq Vdq', 'MOVDQU: F3 0F 6F Vdq Wdq | F3 0F 7F Wdq Vdq', 'LDDQU: F2 0F F0 Vdq Mdq',
  'MOVNTDQ: 66 0F E7 Mdq Vdq', 'MOVNTDQA: 66 0F 38 2A Vdq Mdq', 'MASKMOVDQU: 66 0F F7 Vdq Udq', 'PSHUFD: 66 0F 70 Vdq Wdq Ib',
  'PSHUFHW: F3 0F 70 Vdq Wdq Ib', 'PSHUFLW: F2 0F 70 Vdq Wdq Ib', 'PINSRW: 66 0F C4 Vdq Ew Ib', 'PEXTRW: 66 0F C5 Gy Udq Ib',
  'PMOVMSKB: 66 0F D7 Gy Udq', 'MOVDQ2Q: F2 0F D6 Pq Uq', 'MOVQ2DQ: F3 0F D6 Vdq Nq', 'LFENCE: 0F AE E8', 'MFENCE: 0F AE F0',
  'SFENCE: 0F AE F8', 'CLFLUSH: NP 0F AE/7 Mb', 'BLENDVPS: 66 0F 38 14 Vdq Wdq', 'BLENDVPD: 66 0F 38 15 Vdq Wdq',
  'PBLENDVB: 66 0F 38 10 Vdq Wdq', 'BLENDPS: 66 0F 3A 0C Vps Wps Ib', 'BLENDPD: 66 0F 3A 0D Vpd Wpd Ib',
  'PBLENDW: 66 0F 3A 0E Vdq Wdq Ib', 'PEXTRB: 66 0F 3A 14 Eb Vdq Ib', 'PEXTRW: 66 0F 3A 15 Ew Vdq Ib',
  'PEXTRD: 66 0F 3A 16 Ey Vdq Ib', 'EXTRACTPS: 66 0F 3A 17 Ed Vdq Ib', 'PINSRB: 66 0F 3A 20 Vdq Eb Ib',
  'INSERTPS: 66 0F 3A 21 Vps Wss Ib', 'PINSRD: 66 0F 3A 22 Vdq Ey Ib',
];

/** Packed integer operations that exist for MMX and for XMM registers under the same opcode. */
const PAIRED = [
  'PUNPCKLBW 60', 'PUNPCKLWD 61', 'PUNPCKLDQ 62', 'PACKSSWB 63', 'PCMPGTB 64', 'PCMPGTW 65', 'PCMPGTD 66', 'PACKUSWB 67',
  'PUNPCKHBW 68', 'PUNPCKHWD 69', 'PUNPCKHDQ 6A', 'PACKSSDW 6B', 'PCMPEQB 74', 'PCMPEQW 75', 'PCMPEQD 76', 'PSRLW D1',
  'PSRLD D2', 'PSRLQ D3', 'PADDQ D4', 'PMULLW D5', 'PSUBUSB D8', 'PSUBUSW D9', 'PMINUB DA', 'PAND DB', 'PADDUSB DC',
  'PADDUSW DD', 'PMAXUB DE', 'PANDN DF', 'PAVGB E0', 'PSRAW E1', 'PSRAD E2', 'PAVGW E3', 'PMULHUW E4', 'PMULHW E5', 'PSUBSB E8',
  'PSUBSW E9', 'PMINSW EA', 'POR EB', 'PADDSB EC', 'PADDSW ED', 'PMAXSW EE', 'PXOR EF', 'PSLLW F1', 'PSLLD F2', 'PSLLQ F3',
  'PMULUDQ F4', 'PMADDWD F5', 'PSADBW F6', 'PSUBB F8', 'PSUBW F9', 'PSUBD FA', 'PSUBQ FB', 'PADDB FC', 'PADDW FD', 'PADDD FE',
  'PSHUFB 38 00', 'PHADDW 38 01', 'PHADDD 38 02', 'PHADDSW 38 03', 'PMADDUBSW 38 04', 'PHSUBW 38 05', 'PHSUBD 38 06',
  'PHSUBSW 38 07', 'PSIGNB 38 08', 'PSIGNW 38 09', 'PSIGND 38 0A', 'PMULHRSW 38 0B', 'PABSB 38 1C', 'PABSW 38 1D',
  'PABSD 38 1E',
].map((entry) => ({ mnemonic: entry.slice(0, entry.indexOf(' ')), opcode: entry.slice(entry.indexOf(' ') + 1) }));
const SHIFTS_BY_IMMEDIATE = [
  'PSRLW 71/2', 'PSRAW 71/4', 'PSLLW 71/6', 'PSRLD 72/2', 'PSRAD 72/4', 'PSLLD 72/6', 'PSRLQ 73/2', 'PSLLQ 73/6',
].map((entry) => entry.split(' '));

const SSE_INTEGER = [
  ...PAIRED.map(({ mnemonic, opcode }) => `${mnemonic}: 66 0F ${opcode} Vdq Wdq`),
  ...SHIFTS_BY_IMMEDIATE.map(([mnemonic, opcode]) => `${mnemonic}: 66 0F ${opcode} Udq Ib`),
  'PSRLDQ: 66 0F 73/3 Udq Ib', 'PSLLDQ: 66 0F 73/7 Udq Ib', 'PUNPCKLQDQ: 66 0F 6C Vdq Wdq', 'PUNPCKHQDQ: 66 0F 6D Vdq Wdq',
  'PALIGNR: 66 0F 3A 0F Vdq Wdq Ib', 'PTEST: 66 0F 38 17 Vdq Wdq', 'PMOVSXBW: 66 0F 38 20 Vdq Wq',
  'PMOVSXBD: 66 0F 38 21 Vdq Wd', 'PMOVSXBQ: 66 0F 38 22 Vdq Ww', 'PMOVSXWD: 66 0F 38 23 Vdq Wq',
  'PMOVSXWQ: 66 0F 38 24 Vdq Wd', 'PMOVSXDQ: 66 0F 38 25 Vdq Wq', 'PMULDQ: 66 0F 38 28 Vdq Wdq', 'PCMPEQQ: 66 0F 38 29 Vdq Wdq',
  'PACKUSDW: 66 0F 38 2B Vdq Wdq', 'PMOVZXBW: 66 0F 38 30 Vdq Wq', 'PMOVZXBD: 66 0F 38 31 Vdq Wd',
  'PMOVZXBQ: 66 0F 38 32 Vdq Ww', 'PMOVZXWD: 66 0F 38 33 Vdq Wq', 'PMOVZXWQ: 66 0F 38 34 Vdq Wd',
  'PMOVZXDQ: 66 0F 38 35 Vdq Wq', 'PCMPGTQ: 66 0F 38 37 Vdq Wdq', 'PMINSB: 66 0F 38 38 Vdq Wdq', 'PMINSD: 66 0F 38 39 Vdq Wdq',
  'PMINUW: 66 0F 38 3A Vdq Wdq', 'PMINUD: 66 0F 38 3B Vdq Wdq', 'PMAXSB: 66 0F 38 3C Vdq Wdq', 'PMAXSD: 66 0F 38 3D Vdq Wdq',
  'PMAXUW: 66 0F 38 3E Vdq Wdq', 'PMAXUD: 66 0F 38 3F Vdq Wdq', 'PMULLD: 66 0F 38 40 Vdq Wdq',
  'PHMINPOSUW: 66 0F 38 41 Vdq Wdq', 'MPSADBW: 66 0F 3A 42 Vdq Wdq Ib',
  'PCMPESTRM text: 66 0F 3A 60 Vdq Wdq Ib ; W0 | 66 0F 3A 60 Vdq Wdq Ib ; W1',
  'PCMPESTRI text: 66 0F 3A 61 Vdq Wdq Ib ; W0 | 66 0F 3A 61 Vdq Wdq Ib ; W1', 'PCMPISTRM text: 66 0F 3A 62 Vdq Wdq Ib',
  'PCMPISTRI text: 66 0F 3A 63 Vdq Wdq Ib',
];

const MMX = [
  ...PAIRED.map(({ mnemonic, opcode }) => `${mnemonic}: NP 0F ${opcode} Pq Q${/^PUNPCKL/.test(mnemonic) ? 'd' : 'q'}`),
  ...SHIFTS_BY_IMMEDIATE.map(([mnemonic, opcode]) => `${mnemonic}: NP 0F ${opcode} Nq Ib`),
  'MOVD: NP 0F 6E Pd Ey | NP 0F 7E Ey Pd', 'MOVQ: NP 0F 6F Pq Qq | NP 0F 7F Qq Pq', 'PSHUFW: NP 0F 70 Pq Qq Ib',
  'PINSRW: NP 0F C4 Pq Ew Ib', 'PEXTRW: NP 0F C5 Gy Nq Ib', 'PMOVMSKB: NP 0F D7 Gy Nq', 'MOVNTQ: NP 0F E7 Mq Pq',
  'MASKMOVQ: NP 0F F7 Pq Nq', 'FXSAVE: NP 0F AE/0 M ; mem W0 | NP 0F AE/0 M ; mem W1',
  'FXRSTOR: NP 0F AE/1 M ; mem W0 | NP 0F AE/1 M ; mem W1', 'PALIGNR: NP 0F 3A 0F Pq Qq Ib', 'EMMS: NP 0F 77',
];

const X87_ARITHMETIC = ['ADD', 'MUL', 'COM', 'COMP', 'SUB', 'SUBR', 'DIV', 'DIVR'];
const X87_PLAIN = [
  'FNOP D0', 'FCHS E0', 'FABS E1', 'FTST E4', 'FXAM E5', 'FLD1 E8', 'FLDL2T E9', 'FLDL2E EA', 'FLDPI EB', 'FLDLG2 EC',
  'FLDLN2 ED', 'FLDZ EE', 'F2XM1 F0', 'FYL2X F1', 'FPTAN F2', 'FPATAN F3', 'FXTRACT F4', 'FPREM1 F5', 'FDECSTP F6',
  'FINCSTP F7', 'FPREM F8', 'FYL2XP1 F9', 'FSQRT FA', 'FSINCOS FB', 'FRNDINT FC', 'FSCALE FD', 'FSIN FE', 'FCOS FF',
].map((entry) => entry.split(' '));

/** Of AMD's processors: Intel's manual calls many condition codes undefined. With the aliases that all processors have. */
const X87 = [
  ...X87_ARITHMETIC.flatMap((name, i) => [
    `F${name} f80: D8/${i} Md | DC/${i} Mq | D8 ${hex(0xc0 + 8 * i)}+ i`, `FI${name} f80: DA/${i} Md | DE/${i} Mw`,
  ]),
  // With ST(i) as destination, subtraction and division change places with their reverses.
  ...['ADD', 'MUL', '', '', 'SUBR', 'SUB', 'DIVR', 'DIV'].flatMap((name, i) =>
    name ? [`F${name} f80: DC ${hex(0xc0 + 8 * i)}+ i`, `F${name}P f80: DE ${hex(0xc0 + 8 * i)}+ i`] : []),
  ...X87_PLAIN.map(([name, modrm]) => `${name} f80: D9 ${modrm}`),
  ...['B', 'E', 'BE', 'U'].flatMap((name, i) => [
    `FCMOV${name} f80: DA ${hex(0xc0 + 8 * i)}+ i`, `FCMOVN${name} f80: DB ${hex(0xc0 + 8 * i)}+ i`,
  ]),
  'FLD f80: D9/0 Md | DD/0 Mq | DB/5 Mt | D9 C0+ i', 'FST f80: D9/2 Md | DD/2 Mq | DD D0+ i',
  'FILD f80: DF/0 Mw | DB/0 Md | DF/5 Mq', 'FSTP f80: D9/3 Md | DD/3 Mq | DB/7 Mt | DD D8+ i | DF D0+ i | DF D8+ i',
  'FSTPNCE f80: D9 D8+ i', 'FIST f80: DF/2 Mw | DB/2 Md', 'FISTP f80: DF/3 Mw | DB/3 Md | DF/7 Mq',
  'FISTTP f80: DF/1 Mw | DB/1 Md | DD/1 Mq', 'FBLD f80: DF/4 Mt', 'FBSTP f80: DF/6 Mt',
  'FXCH f80: D9 C8+ i | DD C8+ i | DF C8+ i', 'FCOM f80: DC D0+ i', 'FCOMP f80: DC D8+ i | DE D0+ i', 'FCOMPP f80: DE D9',
  'FUCOM f80: DD E0+ i', 'FUCOMP f80: DD E8+ i', 'FUCOMPP f80: DA E9', 'FUCOMI f80: DB E8+ i', 'FUCOMIP f80: DF E8+ i',
  'FCOMI f80: DB F0+ i', 'FCOMIP f80: DF F0+ i', 'FFREE f80: DD C0+ i', 'FFREEP f80: DF C0+ i', 'FNENI f80: DB E0',
  'FNDISI f80: DB E1', 'FNCLEX f80: DB E2', 'FNINIT f80: DB E3', 'FNSETPM f80: DB E4', 'FNSTCW f80: D9/7 Mw',
  'FNSTSW f80: DD/7 Mw | DF E0', 'FLDCW f80: D9/5 Mw', 'FWAIT f80: 9B', 'FLDENV f80: D9/4 M ; s16 s32 s64',
  'FNSTENV f80: D9/6 M ; s16 s32 s64', 'FRSTOR f80: DD/4 M ; s16 s32 s64', 'FNSAVE f80: DD/6 M ; s16 s32 s64',
];

/**
 * Near branches with 66 and without REX.W: AMD's processors take a 16-bit displacement and cut RIP to 16 bits, Intel's
 * ignore the prefix.
 */
const BRANCH16 = CONTROL.filter((line) => /^(J|CALL|RET|LOOP)/.test(line)).map((line) => line.replaceAll('; f64', '; d64 s16'));

/** Newer than x86-64-v2. */
const NEWER = ['CLFLUSHOPT: 66 0F AE/7 Mb', 'CLWB: 66 0F AE/6 Mb', 'INVPCID: 66 0F 38 82 Gq Mdq'];

const BIT_MANIPULATION = [
  'TZCNT: F3 0F BC Gv Ev', 'LZCNT: F3 0F BD Gv Ev', 'ANDN: VEX NP 0F 38 F2 Gy By Ey', 'BEXTR: VEX NP 0F 38 F7 Gy Ey By',
  'BLSR: VEX NP 0F 38 F3/1 By Ey', 'BLSMSK: VEX NP 0F 38 F3/2 By Ey', 'BLSI: VEX NP 0F 38 F3/3 By Ey',
  'BZHI: VEX NP 0F 38 F5 Gy Ey By', 'MULX: VEX F2 0F 38 F6 Gy By Ey', 'PDEP: VEX F2 0F 38 F5 Gy By Ey',
  'PEXT: VEX F3 0F 38 F5 Gy By Ey', 'RORX: VEX F2 0F 3A F0 Gy Ey Ib', 'SARX: VEX F3 0F 38 F7 Gy Ey By',
  'SHLX: VEX 66 0F 38 F7 Gy Ey By', 'SHRX: VEX F2 0F 38 F7 Gy Ey By', 'ADCX: 66 0F 38 F6 Gy Ey', 'ADOX: F3 0F 38 F6 Gy Ey',
  'MOVBE: NP 0F 38 F0 Gv Mv | NP 0F 38 F1 Mv Gv',
];

/** What VEX must not follow, VEX.L, a VEX.vvvv that names no operand, maps and opcodes that don't exist. */
const ILLEGAL_VEX: LiteralForm[] = [
  '66 c4 e2 60 f2 c1', 'f2 c4 e2 60 f2 c1', 'f3 c4 e2 60 f2 c1', 'f0 c4 e2 60 f2 03', '48 c4 e2 60 f2 c1', 'c4 e2 64 f2 c1',
  'c4 e2 61 f2 c1', 'c4 e3 63 f0 c1 05', 'c4 e3 7f f0 c1 05', 'c4 e0 60 f2 c1', 'c4 e4 60 f2 c1', 'c4 e2 60 f3 c1', 'c4 e2 60 f3 e1',
  'c4 e2 60 f4 c1', 'c4 e2 61 f5 c1', 'c4 e1 60 f2 c1', 'f2 0f 38 f6 c1', '0f 38 f0 c1', '66 0f 38 f1 c1',
].map((bytes) => ({ form: `UD ${bytes.replaceAll(' ', '')}`, bytes }));

const CRYPTOGRAPHY = [
  'AESENC: 66 0F 38 DC Vdq Wdq', 'AESENCLAST: 66 0F 38 DD Vdq Wdq', 'AESDEC: 66 0F 38 DE Vdq Wdq', 'AESDECLAST: 66 0F 38 DF Vdq Wdq',
  'AESIMC: 66 0F 38 DB Vdq Wdq', 'AESKEYGENASSIST: 66 0F 3A DF Vdq Wdq Ib', 'PCLMULQDQ: 66 0F 3A 44 Vdq Wdq Ib',
  'SHA1RNDS4: NP 0F 3A CC Vdq Wdq Ib', 'SHA1NEXTE: NP 0F 38 C8 Vdq Wdq', 'SHA1MSG1: NP 0F 38 C9 Vdq Wdq',
  'SHA1MSG2: NP 0F 38 CA Vdq Wdq', 'SHA256RNDS2: NP 0F 38 CB Vdq Wdq', 'SHA256MSG1: NP 0F 38 CC Vdq Wdq',
  'SHA256MSG2: NP 0F 38 CD Vdq Wdq',
];

/** They look at the descriptor table that `DESCRIPTORS` in machine-state.ts tells of. */
const DESCRIPTOR_TABLE = ['LAR: 0F 02 Gv Ew', 'LSL: 0F 03 Gv Ew', 'VERR: 0F 00/4 Ew', 'VERW: 0F 00/5 Ew'];

/** With RFBM kept to what x86-64-v2 has. */
const EXTENDED_STATE = [
  ...[['XSAVE', '0F AE/4'], ['XRSTOR', '0F AE/5'], ['XSAVEOPT', '0F AE/6'], ['XSAVEC', '0F C7/4']].map(
    ([mnemonic, encoding]) => `${mnemonic}: NP ${encoding} M ; mem W0 | NP ${encoding} M ; mem W1`,
  ),
];

const FSGSBASE = ['RDFSBASE: F3 0F AE/0 Ry', 'RDGSBASE: F3 0F AE/1 Ry', 'WRFSBASE: F3 0F AE/2 Ry', 'WRGSBASE: F3 0F AE/3 Ry'];

type OperandSize = Form['size'];

function operandSizes(encoding: Encoding): OperandSize[] {
  const has = (modifier: string): boolean => encoding.modifiers.has(modifier);
  const only = ([16, 32, 64] as const).filter((size) => has(`s${size}`));
  if (only.length) return only;
  if (has('f64')) return [64];
  if (has('d64')) return [16, 64];
  const sizes = encoding.operands.map((operand) => operand.size);
  if (sizes.some((size) => size === 'v' || size === 'z')) return [16, 32, 64];
  return sizes.includes('y') ? [32, 64] : [0];
}

function operandKinds(encoding: Encoding): Form['kind'][] {
  if (!encoding.hasModrm || encoding.modrm >= 0) return ['none'];
  if (encoding.operands.some(({ code }) => code === 'M')) return ['mem'];
  if (encoding.operands.some(({ code }) => 'RUN'.includes(code))) return ['reg'];
  return encoding.modifiers.has('reg') ? ['reg'] : encoding.modifiers.has('mem') ? ['mem'] : ['reg', 'mem'];
}

const LOCK = 0xf0;
const REPNE = 0xf2;
const REPE = 0xf3;
const ADDRESS_SIZE = 0x67;
/** These use RSI, RDI, RBX or RCX by themselves, as 32-bit registers under 67h. */
const IMPLICIT_ADDRESS = /^(MOVS|STOS|LODS|CMPS|SCAS|XLAT|LOOP(N?E)?|JRCXZ|MASKMOV\w+)$/;
const PROFILE_OF: Record<string, Profile> = { f32: 'float32', f64: 'float64', f80: 'float80', text: 'text' };

/** All forms of one encoding: each operand size, register and memory, and with the prefixes that mean something. */
export function expandForms(mnemonic: string, text: string, attributes: ReadonlySet<string>): Form[] {
  const encoding = parseEncoding(text);
  const profile = Object.entries(PROFILE_OF).find(([name]) => attributes.has(name))?.[1] ?? 'integer';
  const operands = encoding.operands.map(({ code, size }) => (/^[a-z]?[A-Z]$/.test(code) ? code + size : code)).join(',');
  const forms: Form[] = [];
  for (const size of operandSizes(encoding)) {
    for (const kind of operandKinds(encoding)) {
      const add = (name: string, prefixes: number[], illegal = false): void => {
        const detail = [size || '', kind === 'none' ? '' : kind, encoding.modifiers.has('W1') ? 'W1' : ''].filter(Boolean);
        const id = [`${name}${mnemonic}${operands && ` ${operands}`}`, ...detail].join('/');
        forms.push({ id, mnemonic, encoding, size, kind, prefixes, profile, illegal: illegal || attributes.has('illegal') });
      };
      const repeats = attributes.has('repe') ? { REPE: REPE, REPNE: REPNE } : attributes.has('rep') ? { REP: REPE } : {};
      const addressing = IMPLICIT_ADDRESS.test(mnemonic) ? { '': [], 'A32 ': [ADDRESS_SIZE] } : { '': [] };
      for (const [name, address] of Object.entries(addressing)) {
        add(name, address);
        for (const [repeat, prefix] of Object.entries(repeats)) add(`${name}${repeat} `, [...address, prefix]);
      }
      const destination = /^[EM]$/.test(encoding.operands[0]?.code ?? '');
      if (attributes.has('lock')) add('LOCK ', [LOCK], !(kind === 'mem' && destination));
      if (attributes.has('nolock')) add('LOCK ', [LOCK], true);
    }
  }
  return forms;
}

function family(name: string, lines: string[], literals: LiteralForm[] = []): Family {
  const forms = lines.flatMap((line) => {
    const colon = line.indexOf(':');
    const [mnemonic, ...attributes] = line.slice(0, colon).split(' ');
    return line.slice(colon + 1).split('|').flatMap((encoding) => expandForms(mnemonic, encoding.trim(), new Set(attributes)));
  });
  // Encodings that the operand codes alone don't tell apart (TEST F6/0 and F6/1) get their opcode into the name.
  const seen = new Map<string, number>();
  for (const { id } of forms) seen.set(id, (seen.get(id) ?? 0) + 1);
  for (const form of forms) if ((seen.get(form.id) as number) > 1) form.id += ` [${form.encoding.text.split(';')[0].trim()}]`;
  return { name, forms, literals };
}

const LONGEST_PADDING = '66'.repeat(12);

/** Prefixes where they have no meaning, in odd orders, and too many of them. */
const PREFIXES: LiteralForm[] = [
  { form: 'ADD Ev,Gv/66 before REX.W', bytes: '66 48 01 d8' },
  { form: 'ADD Ev,Gv/REX before 66 is ignored', bytes: '48 66 01 d8' },
  { form: 'ADD Ev,Gv/REX before REX is ignored', bytes: '4c 40 01 d8' },
  { form: 'ADD Ev,Gv/REX before segment is ignored', bytes: '49 65 01 03' },
  { form: 'ADD Ev,Gv/F3', bytes: 'f3 01 d8' },
  { form: 'ADD Ev,Gv/F2', bytes: 'f2 48 01 d8' },
  { form: 'ADD Ev,Gv/F3 F2 66', bytes: 'f3 f2 66 01 d8' },
  { form: 'ADD Ev,Gv/CS ignored', bytes: '2e 48 01 03' },
  { form: 'ADD Ev,Gv/DS ignored', bytes: '3e 48 01 03' },
  { form: 'ADD Ev,Gv/ES ignored', bytes: '26 48 01 03' },
  { form: 'ADD Ev,Gv/SS ignored', bytes: '36 48 01 03' },
  { form: 'ADD Ev,Gv/FS', bytes: '64 48 01 03' },
  { form: 'ADD Ev,Gv/GS', bytes: '65 48 01 03' },
  { form: 'ADD Ev,Gv/GS then DS', bytes: '65 3e 48 01 03' },
  { form: 'ADD Ev,Gv/FS then GS', bytes: '64 65 48 01 03' },
  { form: 'ADD Ev,Gv/A32 GS', bytes: '67 65 48 01 03' },
  { form: 'MOV Gv,Ev/A32 EIP-relative', bytes: '67 8b 05 00 00 00 00' },
  { form: 'MOV Gv,Ev/GS RIP-relative', bytes: '65 8b 05 00 00 00 00' },
  { form: 'MOV Gv,Ev/GS absolute', bytes: '65 48 8b 04 25 00 00 00 00' },
  { form: 'MOV Gv,Ev/RBP base', bytes: '48 8b 45 10' },
  { form: 'MOV Gv,Ev/RSP base', bytes: '48 8b 44 24 10' },
  { form: 'MOV Gv,Ev/R12 base', bytes: '49 8b 04 24' },
  { form: 'MOV Gv,Ev/R13 base', bytes: '49 8b 45 00' },
  { form: 'MOV Gv,Ev/R12 index', bytes: '4a 8b 04 63' },
  { form: 'MOV Gv,Ev/GS RSP base', bytes: '65 48 8b 04 24' },
  { form: 'LEA Gv,M/GS ignored', bytes: '65 48 8d 44 8b 10' },
  { form: 'LEA Gv,M/A32', bytes: '67 48 8d 44 8b 10' },
  { form: 'LEA Gv,M/A32 16', bytes: '67 66 8d 44 8b 10' },
  { form: 'MOV Eb,Gb/SPL', bytes: '40 88 e0' },
  { form: 'MOV Eb,Gb/AH', bytes: '88 e0' },
  { form: 'MOV Eb,Gb/DIL', bytes: '40 88 fb' },
  { form: 'MOV Eb,Gb/BH', bytes: '88 fb' },
  { form: 'XCHG Zv,eAX/90 is a NOP', bytes: '90' },
  { form: 'XCHG Zv,eAX/REX.W 90 is a NOP', bytes: '48 90' },
  { form: 'XCHG Zv,eAX/REX.B 90 is not', bytes: '41 90' },
  { form: 'XCHG Zv,eAX/REX.WB 90 is not', bytes: '49 90' },
  { form: 'XCHG Zv,eAX/66 REX.B 90 is not', bytes: '66 41 90' },
  { form: 'XCHG Zv,eAX/66 90 is a NOP', bytes: '66 90' },
  { form: 'XCHG Zv,eAX/91 zero-extends', bytes: '91' },
  { form: 'PAUSE /REX', bytes: 'f3 48 90' },
  { form: 'NOP /2E', bytes: '2e 90' },
  { form: 'NOP /F2', bytes: 'f2 90' },
  { form: 'NOP /0F 18/4', bytes: '0f 18 20' },
  { form: 'NOP /0F 19', bytes: '0f 19 00' },
  { form: 'NOP /0F 1C register', bytes: '0f 1c c0' },
  { form: 'NOP /0F 1F register', bytes: '0f 1f c0' },
  { form: 'ENDBR64 ', bytes: 'f3 0f 1e fa' },
  { form: 'MOV Zv,Iv/64 67h does not matter', bytes: '67 48 b8 88 77 66 55 44 33 22 11' },
  { form: 'MOV eAX,Ov/32-bit offset', bytes: '67 a1 00 00 00 20' },
  { form: 'MOV Ov,eAX/32-bit offset', bytes: '67 48 a3 40 00 00 20' },
  { form: 'CALL Jz/66 REX.W', bytes: '66 48 e8 10 00 00 00' },
  { form: 'CALL Jz/66 66 REX.W', bytes: '66 66 48 e8 f0 ff ff ff' },
  { form: 'JMP Ev/BND', bytes: 'f2 ff e0' },
  { form: 'JMP Ev/NOTRACK', bytes: '3e ff e0' },
  { form: 'RET /REP', bytes: 'f3 c3' },
  { form: 'CALL Ev/BND memory', bytes: 'f2 ff 13' },
  { form: 'CALL Ev/RSP', bytes: 'ff d4' },
  { form: 'CALL Ev/memory at RSP', bytes: 'ff 14 24' },
  { form: 'PUSH Zv/RSP', bytes: '54' },
  { form: 'POP Zv/RSP', bytes: '5c' },
  { form: 'POP Zv/SP', bytes: '66 5c' },
  { form: 'PUSH Ev/memory at RSP', bytes: 'ff 34 24' },
  { form: 'POP Ev/memory at RSP', bytes: '8f 04 24' },
  { form: 'POP Ev/memory above RSP', bytes: '8f 44 24 10' },
  { form: 'POP Ev/memory above SP, 16 bits', bytes: '66 8f 44 24 10' },
  { form: 'PUSH Ev/REX.W', bytes: '48 ff 33' },
  { form: 'PUSH Ev/REX.W 66', bytes: '66 48 ff 33' },
  { form: 'PUSH sIb/REX.W 66', bytes: '66 48 6a ff' },
  { form: 'PUSHF /REX.W 66', bytes: '66 48 9c' },
  { form: 'MOVSXD Gv,Ed/register', bytes: '48 63 c3' },
  { form: 'CMPXCHG16B Mdq/66', bytes: '66 48 0f c7 0b' },
  { form: 'BSF Gv,Ev/F2', bytes: 'f2 0f bc c3' },
  { form: 'CRC32 Gy,Ev/66 REX.W', bytes: '66 f2 48 0f 38 f1 c3' },
  { form: 'CRC32 Gy,Eb/BH', bytes: 'f2 0f 38 f0 c7' },
  { form: 'POPCNT Gv,Ev/66', bytes: '66 f3 0f b8 c3' },
  { form: 'MOVQ Vdq,Ey/66 66', bytes: '66 66 48 0f 6e c3' },
  { form: 'ADDSD Vsd,Wsd/66 F2', bytes: '66 f2 0f 58 c1', profile: 'float64' },
  { form: 'ADDSS Vss,Wss/66 F3', bytes: '66 f3 0f 58 c1', profile: 'float32' },
  { form: 'ADDSS Vss,Wss/F2 F3', bytes: 'f2 f3 0f 58 c1', profile: 'float32' },
  { form: 'ADDSD Vsd,Wsd/F3 F2', bytes: 'f3 f2 0f 58 c1', profile: 'float64' },
  { form: 'MOVDQU Vdq,Wdq/F3 REX', bytes: 'f3 44 0f 6f 03' },
  { form: 'REPNE MOVS /unsized', bytes: 'f2 a4' },
  { form: 'REPNE STOS /64', bytes: 'f2 48 ab' },
  { form: 'REP MOVS /both prefixes', bytes: 'f2 f3 a5' },
  { form: 'MOVS /GS source', bytes: '65 48 a5' },
  { form: 'REP MOVS /GS source', bytes: 'f3 65 a4' },
  { form: 'MOVS /ES source ignored', bytes: '26 a4' },
  { form: 'LODS /FS source', bytes: '64 ac' },
  { form: 'CMPS /GS source', bytes: '65 a6' },
  { form: 'XLAT /GS', bytes: '65 d7' },
  { form: 'NOP /15 bytes', bytes: `${LONGEST_PADDING} 66 66 90` },
  { form: 'NOP /16 bytes are too long', bytes: `${LONGEST_PADDING} 66 66 66 90` },
  { form: 'ADD Ev,Iz/15 bytes', bytes: '66 66 66 66 66 2e 2e 2e 48 81 c3 44 33 22 11' },
  { form: 'ADD Ev,Iz/16 bytes are too long', bytes: '66 66 66 66 66 66 2e 2e 2e 48 81 c3 44 33 22 11' },
];

/** Opcodes that 64-bit mode or any mode leaves undefined, register forms of memory-only instructions, illegal LOCK. */
const INVALID: LiteralForm[] = [
  '06', '07', '0e', '16', '17', '1e', '1f', '27', '2f', '37', '3f', '60', '61', '82 c0 01', '9a', 'ce', 'd4 0a', 'd5 0a', 'd6',
  'ea', '0f 04', '0f 0a', '0f 0c', '0f 24 c0', '0f 26 c0', '0f 36', '0f 39', '0f 3b', '0f 3c', '0f 3d', '0f 3e', '0f 3f',
  '0f a6 c0', '0f a7 c0', 'fe d0', 'fe 13', 'fe e8', 'ff f8', 'ff 3b', 'c6 c8 01', 'c6 0b 01', 'c7 c8 01 00 00 00',
  '0f ba c0 01', '0f ba 0b 01', '0f c7 c0', '0f c7 03', '0f 01 c5', '8d c0', '48 8d c3', '8e c8', '8e 08', '8c f0', '8e f8',
  '0f 13 c0', '0f 17 c0', '0f 2b c0', '0f c3 c0', '0f e7 c0', '66 0f 12 c0', '66 0f 13 c0', '66 0f 16 c0', '66 0f 17 c0',
  'f2 0f f0 c0', '66 0f e7 c0', '66 0f 38 2a c0', '0f f7 03', '0f 50 03', '0f d7 03', '0f c5 03 00', 'f3 0f d6 03',
  'f2 0f d6 03', '66 0f 73 03 01', '0f 71 c0 01', '0f 72 c8 01', '0f 73 d8 01', '66 0f 71 13 01', '0f 73 f8 01',
  '66 0f 72 f8 01', 'f3 0f 28 c0', 'f2 0f 54 c0', 'f3 0f fe c0', '0f 38 10 c0', '0f 38 20 c0', '0f 38 3f c0', '0f 3a 08 c0 00',
  '0f 3a 63 c0 00', '66 0f 38 4f c0', '0f 6c c0', '0f 6d c0', '0f d0 c0', '0f 7c c0', 'f3 0f 7c c0', '0f e6 c0', '0f d6 c0',
  'f3 0f 50 c0', '0f 01 ca', '0f 01 cb', 'f0 90', 'f0 50', 'f0 0f 1f 00', 'f0 8d 03', 'f0 0f bc 03', 'f0 c1 23 01', 'f0 0f 58 03',
  'f0 a4', 'f0 f3 a4',
  'f0 c3', 'f0 eb 00', 'f0 0f 0b', 'f0 f6 23', 'f0 0f a3 03', 'f0 0f ba 23 01', 'f0 0f 6f 03', 'f0 99', 'f0 63 03',
  'f0 0f 40 03', 'f0 0f 90 03', 'f0 8f 03',
].map((bytes) => ({ form: `UD ${bytes.replaceAll(' ', '')}`, bytes }));

/** Raise #GP, or #UD for registers that don't exist, at CPL 3. */
const CONTROL_REGISTERS: LiteralForm[] = [
  ...[0, 2, 3, 4, 8].flatMap((register) => [
    { form: `MOV Rq,Cq/cr${register}`, bytes: `${register === 8 ? '44' : '40'} 0f 20 ${hex(0xc3 | ((register & 7) << 3))}` },
    { form: `MOV Cq,Rq/cr${register}`, bytes: `${register === 8 ? '44' : '40'} 0f 22 ${hex(0xc3 | ((register & 7) << 3))}` },
  ]),
  ...[0, 1, 2, 3, 6, 7].flatMap((register) => [
    { form: `MOV Rq,Dq/dr${register}`, bytes: `0f 21 ${hex(0xc0 | (register << 3))}` },
    { form: `MOV Dq,Rq/dr${register}`, bytes: `0f 23 ${hex(0xc0 | (register << 3))}` },
  ]),
];

/** Code that ends before, at or after a page boundary, with the next page mapped and not. */
function acrossPages(name: string, bytes: string): LiteralForm[] {
  const size = bytes.split(' ').length;
  const before = (boundary: number, what: string, counts: number[]): LiteralForm[] =>
    counts.map((inside) => ({ form: `${name}/${inside} of ${size} bytes before ${what}`, bytes, codeOffset: boundary - inside }));
  const counts = [...new Set([1, 2, 3, size - 1, size])].filter((count) => count > 0 && count <= size);
  return [...before(0x1000, 'the next page', counts), ...before(0x2000, 'the end of code', [0, ...counts])];
}

const FETCH: LiteralForm[] = [
  ...acrossPages('ADD Ev,Iz', '48 81 c3 44 33 22 11'), ...acrossPages('NOP ', '66 0f 1f 84 00 00 00 00 00'),
  ...acrossPages('MOV Zv,Iv', '48 b8 88 77 66 55 44 33 22 11'), ...acrossPages('JMP Jz', 'e9 fb 0f 00 00'),
  ...acrossPages('MOV Gv,Ev', '48 8b 05 f9 ff ff ff'), ...acrossPages('PUSH Zv', '50'), ...acrossPages('REP MOVS ', 'f3 a4'),
  ...acrossPages('RET ', 'c3'), ...acrossPages('UD 0f0b', '0f 0b'), ...acrossPages('PSHUFB Vdq,Wdq', '66 0f 38 00 c1'),
  ...acrossPages('ADD Ev,Gv', 'f0 48 01 03'),
];

/** With RFLAGS.AC set (CR0.AM is): what is checked, by how much, and that #PF and #GP go before or after #AC. */
const ALIGNMENT: LiteralForm[] = [
  ['MOV Gv,Ev', '66 8b 03'], ['MOV Gv,Ev', '8b 03'], ['MOV Gv,Ev', '48 8b 03'], ['MOV Ev,Gv', '66 89 03'],
  ['MOV Ev,Gv', '89 03'], ['MOV Ev,Gv', '48 89 03'],
  ['MOV Gb,Eb', '8a 03'], ['ADD Ev,Gv', '48 01 03'], ['CMP Gv,Ev', '3b 03'], ['PUSH Zv', '50'], ['POP Zv', '58'],
  ['PUSH Zv', '66 50'], ['PUSH Ev', 'ff 33'],
  ['CALL Ev', 'ff 13'], ['RET ', 'c3'], ['MOVS ', '48 a5'], ['REP MOVS ', 'f3 66 a5'], ['STOS ', 'ab'], ['LODS ', '66 ad'],
  ['MOVZX Gv,Ew', '0f b7 03'],
  ['MOVSXD Gv,Ed', '48 63 03'], ['MOVNTI My,Gy', '0f c3 03'], ['MOVQ Pq,Qq', '0f 6f 03'], ['MOVD Vdq,Ey', '66 0f 6e 03'],
  ['MOVQ Vq,Wq', 'f3 0f 7e 03'],
  ['MOVSS Vss,Wss', 'f3 0f 10 03'], ['MOVSD Vsd,Wsd', 'f2 0f 10 03'], ['CMPXCHG8B Mq', '0f c7 0b'], ['BT Ev,Gv', '0f a3 03'],
  ['NOP Ev', '0f 1f 03'],
].map(([name, bytes]) => ({ form: `${name}/AC ${bytes.replaceAll(' ', '')}`, bytes }));

export const FAMILIES: Family[] = [
  family('alu', ALU), family('shift', SHIFT), family('move', MOVE), family('stack', STACK), family('string', STRING),
  family('control', CONTROL),
  family('system', PRIVILEGED, [...INVALID, ...CONTROL_REGISTERS, ...FETCH]), family('prefix', [], PREFIXES),
  family('alignment', [], ALIGNMENT),
  family('sse-float', SSE_FLOAT), family('sse-move', SSE_MOVE), family('sse-integer', SSE_INTEGER), family('mmx', MMX),
  { ...family('fsgsbase', FSGSBASE), features: ['fsgsbase'] },
  {
    ...family('bit-manipulation', BIT_MANIPULATION, ILLEGAL_VEX),
    features: ['bmi1', 'bmi2', 'abm', 'adx', 'movbe'],
  },
  { ...family('cryptography', CRYPTOGRAPHY), features: ['aes', 'pclmulqdq', 'sha_ni'], vendor: 'AuthenticAMD' },
  { ...family('extended-state', EXTENDED_STATE), features: ['xsave', 'xsaveopt', 'xsavec'], vendor: 'AuthenticAMD' },
  { ...family('newer', NEWER), features: ['clflushopt', 'clwb', 'invpcid'] },
  { ...family('descriptors', DESCRIPTOR_TABLE), vendor: 'AuthenticAMD' },
  { ...family('branch16', BRANCH16), vendor: 'AuthenticAMD' }, { ...family('x87', X87), vendor: 'AuthenticAMD' },
];
