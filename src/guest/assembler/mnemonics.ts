/**
 * The instructions' names by the number of their operands, for the types of the assembler's methods. A test compares the lists
 * with the definitions.
 */

import type { FarPointer, Immediate, Operand, Place, Target } from './operands.ts';

/** No operands. */
export type Nullary =
  | Words<'aaa aas cbw cdq cdqe clac clc cld cli clts cmc cmpsb cmpsq cmpsw cpuid cqo cwd cwde daa das emms f2xm1 fabs fchs fcompp fcos'>
  | Words<'fdecstp fincstp fld1 fldl2e fldl2t fldlg2 fldln2 fldpi fldz fnclex fndisi fneni fninit fnop fnsetpm fpatan fprem fprem1'>
  | Words<'fptan frndint fscale fsin fsincos fsqrt ftst fucompp fwait fxam fxtract fyl2x fyl2xp1 hlt insb insd insw int1 int3 into invd'>
  | Words<'iretd iretq iretw lahf leave lfence lodsb lodsd lodsq lodsw mfence movsb movsq movsw outsb outsd outsw pause popa popf pusha'>
  | Words<'pushf rdmsr rdpmc rdtsc rdtscp sahf salc scasb scasd scasq scasw sfence stac stc std sti stosb stosd stosq stosw swapgs'>
  | Words<'syscall sysenter sysexit sysret sysretq ud2 vmcall vmmcall wbinvd wrmsr xgetbv xlat xsetbv'>;

/** Branches to a label. */
export type Branches =
  | Words<'ja jae jb jbe jc je jg jge jl jle jna jnae jnb jnbe jnc jne jng jnge jnl jnle jno jnp jns jnz jo jp jpe jpo jrcxz js jz loop'>
  | Words<'loope loopne'>;

/** One operand. */
export type Unary =
  | Words<'aad aam bswap call callFar clflush clflushopt clwb cmpxchg16b cmpxchg8b dec div fbld fbstp ffree ffreep fiadd ficom ficomp'>
  | Words<'fidiv fidivr fild fimul fist fistp fisttp fisub fisubr fld fldcw fldenv fnsave fnstcw fnstenv fnstsw frstor fst fstp fxrstor'>
  | Words<'fxrstor64 fxsave fxsave64 idiv inc int invlpg jmp jmpFar ldmxcsr lgdt lidt lldt lmsw ltr mul neg not pop prefetchnta'>
  | Words<'prefetcht0 prefetcht1 prefetcht2 prefetchw push rdfsbase rdgsbase rdrand seta setae setb setbe setc sete setg setge setl'>
  | Words<'setle setnc setne setno setnp setns setnz seto setp sets setz sgdt sidt sldt smsw stmxcsr str verr verw wrfsbase wrgsbase'>
  | Words<'xrstor xrstor64 xsave xsave64'>;

/** Two. */
export type Binary =
  | Words<'adc add addpd addps addsd addss addsubpd addsubps and andnpd andnps andpd andps blendvpd blendvps bound bsf bsr bt btc btr'>
  | Words<'bts cmova cmovae cmovb cmovbe cmovc cmove cmovg cmovge cmovl cmovle cmovnc cmovne cmovno cmovnp cmovns cmovnz cmovo cmovp'>
  | Words<'cmovs cmovz cmp cmpxchg comisd comiss crc32 cvtdq2pd cvtdq2ps cvtpd2dq cvtpd2pi cvtpd2ps cvtpi2pd cvtpi2ps cvtps2dq cvtps2pd'>
  | Words<'cvtps2pi cvtsd2si cvtsd2ss cvtsi2sd cvtsi2ss cvtss2sd cvtss2si cvttpd2dq cvttpd2pi cvttps2dq cvttps2pi cvttsd2si cvttss2si'>
  | Words<'divpd divps divsd divss enter haddpd haddps hsubpd hsubps in invpcid lar lddqu lds lea les lfs lgs lsl lss maskmovdqu'>
  | Words<'maskmovq maxpd maxps maxsd maxss minpd minps minsd minss mov movapd movaps movd movddup movdq2q movdqa movdqu movhlps movhpd'>
  | Words<'movhps movlhps movlpd movlps movmskpd movmskps movntdq movntdqa movnti movntpd movntps movntq movq movq2dq movshdup movsldup'>
  | Words<'movss movsx movsxd movupd movups movzx mulpd mulps mulsd mulss or orpd orps out pabsb pabsd pabsw packssdw packsswb packusdw'>
  | Words<'packuswb paddb paddd paddq paddsb paddsw paddusb paddusw paddw pand pandn pavgb pavgw pblendvb pcmpeqb pcmpeqd pcmpeqq'>
  | Words<'pcmpeqw pcmpgtb pcmpgtd pcmpgtq pcmpgtw phaddd phaddsw phaddw phminposuw phsubd phsubsw phsubw pmaddubsw pmaddwd pmaxsb'>
  | Words<'pmaxsd pmaxsw pmaxub pmaxud pmaxuw pminsb pminsd pminsw pminub pminud pminuw pmovmskb pmovsxbd pmovsxbq pmovsxbw pmovsxdq'>
  | Words<'pmovsxwd pmovsxwq pmovzxbd pmovzxbq pmovzxbw pmovzxdq pmovzxwd pmovzxwq pmuldq pmulhrsw pmulhuw pmulhw pmulld pmullw pmuludq'>
  | Words<'popcnt por psadbw pshufb psignb psignd psignw pslld pslldq psllq psllw psrad psraw psrld psrldq psrlq psrlw psubb psubd'>
  | Words<'psubq psubsb psubsw psubusb psubusw psubw ptest punpckhbw punpckhdq punpckhqdq punpckhwd punpcklbw punpckldq punpcklqdq'>
  | Words<'punpcklwd pxor rcl rcpps rcpss rcr rol ror rsqrtps rsqrtss sal sar sbb shl shr sqrtpd sqrtps sqrtsd sqrtss sub subpd subps'>
  | Words<'subsd subss test ucomisd ucomiss ud0 ud1 unpckhpd unpckhps unpcklpd unpcklps xadd xchg xor xorpd xorps'>;

/** Three. */
export type Ternary =
  | Words<'blendpd blendps cmppd cmpps cmpss dppd dpps extractps insertps mpsadbw palignr pblendw pcmpestri pcmpestrm pcmpistri'>
  | Words<'pcmpistrm pextrb pextrd pextrq pextrw pinsrb pinsrd pinsrq pinsrw pshufd pshufhw pshuflw pshufw roundpd roundps roundsd'>
  | Words<'roundss shld shrd shufpd shufps'>;

/** Those that are written with or without some operands. */
export interface Varied<Self> {
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

/** x87 instructions whose ST(0) may be left unsaid. */
export type StackTop =
  | Words<'fadd faddp fcmovb fcmovbe fcmove fcmovnb fcmovnbe fcmovne fcmovnu fcmovu fcom fcomi fcomip fcomp fdiv fdivp fdivr fdivrp'>
  | Words<'fmul fmulp fsub fsubp fsubr fsubrp fucom fucomi fucomip fucomp fxch'>;

type Words<Text extends string, Found = never> = Text extends `${infer Head} ${infer Tail}` ? Words<Tail, Found | Head> : Found | Text;

type Method<Self, Operands extends readonly unknown[]> = (...operands: Operands) => Self;
export type Instructions<Self> = Varied<Self> &
  Record<Nullary, Method<Self, []>> &
  Record<Branches, Method<Self, [target: Target]>> &
  Record<Exclude<Unary, keyof Varied<Self>>, Method<Self, [operand: Place | Immediate]>> &
  Record<StackTop, Method<Self, [first: Place, second?: Place]>> &
  Record<Binary, Method<Self, [destination: Place | Immediate, source: Place | Immediate]>> &
  Record<Ternary, Method<Self, [destination: Place, source: Place, third: Place | Immediate]>>;
