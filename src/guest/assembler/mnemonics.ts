/**
 * The instructions' names by the number of their operands, for the types of the assembler's methods. What the definitions have
 * and no list names, the assembler doesn't emit.
 */

import type { FarPointer, Immediate, Operand, Place, Target } from './operands.ts';

/** No operands. */
const NULLARY = [
  'aaa aas cbw cdq cdqe clac clc cld cli clts cmc cmpsb cmpsq cmpsw cpuid cqo cwd cwde daa das emms f2xm1 fabs fchs fcompp fcos',
  'fdecstp fincstp fld1 fldl2e fldl2t fldlg2 fldln2 fldpi fldz fnclex fndisi fneni fninit fnop fnsetpm fpatan fprem fprem1',
  'fptan frndint fscale fsin fsincos fsqrt ftst fucompp fwait fxam fxtract fyl2x fyl2xp1 hlt insb insd insw int1 int3 into invd',
  'iretd iretq iretw lahf leave lfence lodsb lodsd lodsq lodsw mfence movsb movsq movsw outsb outsd outsw pause popa popf pusha',
  'pushf rdmsr rdpmc rdtsc rdtscp sahf salc scasb scasd scasq scasw sfence stac stc std sti stosb stosd stosq stosw swapgs',
  'syscall sysenter sysexit sysret sysretq ud2 vmcall vmmcall wbinvd wrmsr xgetbv xlat xsetbv',
] as const;
type Nullary = Words<(typeof NULLARY)[number]>;

/** Branches to a label. */
const BRANCHES = [
  'ja jae jb jbe jc je jg jge jl jle jna jnae jnb jnbe jnc jne jng jnge jnl jnle jno jnp jns jnz jo jp jpe jpo jrcxz js jz loop',
  'loope loopne',
] as const;
type Branches = Words<(typeof BRANCHES)[number]>;

/** One operand. */
const UNARY = [
  'aad aam bswap call callFar clflush clflushopt clwb cmpxchg16b cmpxchg8b dec div fbld fbstp ffree ffreep fiadd ficom ficomp',
  'fidiv fidivr fild fimul fist fistp fisttp fisub fisubr fld fldcw fldenv fnsave fnstcw fnstenv fnstsw frstor fst fstp fxrstor',
  'fxrstor64 fxsave fxsave64 idiv inc int invlpg jmp jmpFar ldmxcsr lgdt lidt lldt lmsw ltr mul neg not pop prefetchnta',
  'prefetcht0 prefetcht1 prefetcht2 prefetchw push rdfsbase rdgsbase rdpid rdrand rdseed seta setae setb setbe setc sete setg',
  'setge setl setle setnc setne setno setnp setns setnz seto setp sets setz sgdt sidt sldt smsw stmxcsr str verr verw wrfsbase',
  'wrgsbase xrstor xrstor64 xsave xsave64 xsavec xsavec64 xsaveopt xsaveopt64',
] as const;
type Unary = Words<(typeof UNARY)[number]>;

/** Two. */
const BINARY = [
  'adc adcx add addpd addps addsd addss addsubpd addsubps adox aesdec aesdeclast aesenc aesenclast aesimc and andnpd andnps',
  'andpd andps blendvpd blendvps blsi blsmsk blsr bound bsf bsr bt btc btr bts cmova cmovae cmovb cmovbe cmovc cmove cmovg',
  'cmovge cmovl cmovle cmovnc cmovne cmovno cmovnp cmovns cmovnz cmovo cmovp cmovs cmovz cmp cmpxchg comisd comiss crc32',
  'cvtdq2pd cvtdq2ps cvtpd2dq cvtpd2pi cvtpd2ps cvtpi2pd cvtpi2ps cvtps2dq cvtps2pd cvtps2pi cvtsd2si cvtsd2ss cvtsi2sd',
  'cvtsi2ss cvtss2sd cvtss2si cvttpd2dq cvttpd2pi cvttps2dq cvttps2pi cvttsd2si cvttss2si divpd divps divsd divss enter haddpd',
  'haddps hsubpd hsubps in invpcid lar lddqu lds lea les lfs lgs lsl lss lzcnt maskmovdqu maskmovq maxpd maxps maxsd maxss',
  'minpd minps minsd minss mov movapd movaps movbe movd movddup movdq2q movdqa movdqu movhlps movhpd movhps movlhps movlpd',
  'movlps movmskpd movmskps movntdq movntdqa movnti movntpd movntps movntq movq movq2dq movshdup movsldup movss movsx movsxd',
  'movupd movups movzx mulpd mulps mulsd mulss or orpd orps out pabsb pabsd pabsw packssdw packsswb packusdw packuswb paddb',
  'paddd paddq paddsb paddsw paddusb paddusw paddw pand pandn pavgb pavgw pblendvb pcmpeqb pcmpeqd pcmpeqq pcmpeqw pcmpgtb',
  'pcmpgtd pcmpgtq pcmpgtw phaddd phaddsw phaddw phminposuw phsubd phsubsw phsubw pmaddubsw pmaddwd pmaxsb pmaxsd pmaxsw pmaxub',
  'pmaxud pmaxuw pminsb pminsd pminsw pminub pminud pminuw pmovmskb pmovsxbd pmovsxbq pmovsxbw pmovsxdq pmovsxwd pmovsxwq',
  'pmovzxbd pmovzxbq pmovzxbw pmovzxdq pmovzxwd pmovzxwq pmuldq pmulhrsw pmulhuw pmulhw pmulld pmullw pmuludq popcnt por psadbw',
  'pshufb psignb psignd psignw pslld pslldq psllq psllw psrad psraw psrld psrldq psrlq psrlw psubb psubd psubq psubsb psubsw',
  'psubusb psubusw psubw ptest punpckhbw punpckhdq punpckhqdq punpckhwd punpcklbw punpckldq punpcklqdq punpcklwd pxor rcl rcpps',
  'rcpss rcr rol ror rsqrtps rsqrtss sal sar sbb sha1msg1 sha1msg2 sha1nexte sha256msg1 sha256msg2 sha256rnds2 shl shr sqrtpd',
  'sqrtps sqrtsd sqrtss sub subpd subps subsd subss test tzcnt ucomisd ucomiss ud0 ud1 unpckhpd unpckhps unpcklpd unpcklps xadd',
  'xchg xor xorpd xorps',
] as const;
type Binary = Words<(typeof BINARY)[number]>;

/** Three. */
const TERNARY = [
  'aeskeygenassist andn bextr blendpd blendps bzhi cmppd cmpps cmpss dppd dpps extractps insertps mpsadbw mulx palignr pblendw',
  'pclmulqdq pcmpestri pcmpestrm pcmpistri pcmpistrm pdep pext pextrb pextrd pextrq pextrw pinsrb pinsrd pinsrq pinsrw pshufd',
  'pshufhw pshuflw pshufw rorx roundpd roundps roundsd roundss sarx sha1rnds4 shld shlx shrd shrx shufpd shufps',
] as const;
type Ternary = Words<(typeof TERNARY)[number]>;

/** Those that are written with or without some operands. */
interface Varied<Self> {
  nop(place?: Place): Self;
  ret(bytes?: number): Self;
  retfw(bytes?: number): Self;
  retfd(bytes?: number): Self;
  retfq(bytes?: number): Self;
  imul(destination: Place, ...operands: Operand[]): Self;
  /** The string instruction, or the SSE2 one. */
  movsd(...operands: [] | [Place, Place]): Self;
  cmpsd(...operands: [] | [Place, Place, number]): Self;
  call(target: Target | Place): Self;
  jmp(target: Target | Place): Self;
  callFar(target: FarPointer | Place): Self;
  jmpFar(target: FarPointer | Place): Self;
}

const VARIED = ['nop ret retfw retfd retfq imul movsd cmpsd call jmp callFar jmpFar'] as const;

/** x87 instructions whose ST(0) may be left unsaid. */
const STACK_TOP = [
  'fadd faddp fcmovb fcmovbe fcmove fcmovnb fcmovnbe fcmovne fcmovnu fcmovu fcom fcomi fcomip fcomp fdiv fdivp fdivr fdivrp',
  'fmul fmulp fsub fsubp fsubr fsubrp fucom fucomi fucomip fucomp fxch',
] as const;
type StackTop = Words<(typeof STACK_TOP)[number]>;

type Words<Text extends string, Found = never> = Text extends `${infer Head} ${infer Tail}`
  ? Words<Tail, Found | Head>
  : Found | Text;

type Method<Self, Operands extends readonly unknown[]> = (...operands: Operands) => Self;
export type Instructions<Self> = Varied<Self> &
  Record<Nullary, Method<Self, []>> &
  Record<Branches, Method<Self, [target: Target]>> &
  Record<Exclude<Unary, keyof Varied<Self>>, Method<Self, [operand: Place | Immediate]>> &
  Record<StackTop, Method<Self, [first: Place, second?: Place]>> &
  Record<Binary, Method<Self, [destination: Place | Immediate, source: Place | Immediate]>> &
  Record<Ternary, Method<Self, [destination: Place, source: Place, third: Place | Immediate]>>;

export const INSTRUCTION_NAMES: ReadonlySet<string> = new Set(
  [...NULLARY, ...BRANCHES, ...UNARY, ...BINARY, ...TERNARY, ...STACK_TOP, ...VARIED].flatMap((line) => line.split(' ')),
);
