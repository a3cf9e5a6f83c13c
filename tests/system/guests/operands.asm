; Operands in memory at the edge of a segment's limit: the last place where each fits, and one byte (or as much as alignment asks) behind. What is
; stored where it must not be; what is no access at all. SDM 3A 5.3; an AMD EPYC does the same in 32-bit user mode, with segments of an LDT.
%include "common.inc"

SIZE equ 0x1000
DATA4K equ FREE
READONLY equ FREE + 8
WINDOW equ 0x200000

; name, size of the operand, step to the next place, instruction with [edi]
%macro edge 4+
  try %1
  mov eax, DATA4K
  mov ds, eax
  mov edi, SIZE - %2
  xor edx, edx
  mov eax, 3
  %4
  done
  try %1, " behind"
  mov eax, DATA4K
  mov ds, eax
  mov edi, SIZE - %2 + %3
  xor edx, edx
  mov eax, 3
  %4
  done
%endmacro
%macro refused 2+
  try %1, " to a read-only segment"
  mov eax, READONLY
  mov ds, eax
  mov edi, 0x100
  xor edx, edx
  mov eax, 3
  %2
  done
%endmacro
%macro untouched 2+
  try %1, " beyond the limit"
  mov eax, READONLY
  mov ds, eax
  mov edi, SIZE
  %2
  done
%endmacro
%macro clear 0
  push es
  push eax
  mov eax, DATA
  mov es, eax
  pop eax
  pushad
  mov edi, WINDOW
  mov ecx, 0x2000 / 4
  xor eax, eax
  cld
  rep stosd
  popad
  pop es
%endmacro
; A far pointer to %1 at the end of the window.
%macro pointer 3                 ; size of the pointer, offset, selector
  mov dword [WINDOW + SIZE - %1], %2
  mov word [WINDOW + SIZE - 2], %3
%endmacro

main:
  descriptor DATA4K, WINDOW, SIZE - 1, 0x93, 4
  descriptor READONLY, WINDOW, SIZE - 1, 0x91, 4
  mov eax, cr4
  or eax, 0x40600
  mov cr4, eax
  fninit
  clear

  edge "SGDT", 6, 1, sgdt [edi]
  try "LGDT at the edge"
  sgdt [WINDOW + SIZE - 6]
  mov eax, DATA4K
  mov ds, eax
  lgdt [SIZE - 6]
  done
  try "LGDT across it"
  mov eax, DATA4K
  mov ds, eax
  lgdt [SIZE - 5]
  done
  try "LIDT at the edge"
  sidt [WINDOW + SIZE - 6]
  mov eax, DATA4K
  mov ds, eax
  lidt [SIZE - 6]
  done
  try "LIDT across it"
  mov eax, DATA4K
  mov ds, eax
  lidt [SIZE - 5]
  done
  clear
  edge "BOUND of dwords", 8, 1, bound edx, [edi]
  edge "BOUND of words", 4, 1, bound dx, [edi]
  pointer 6, 0x1234, DATA
  edge "LES", 6, 1, les ecx, [edi]
  edge "LDS", 6, 1, lds ecx, [edi]
  edge "LSS", 6, 1, lss ecx, [edi]
  edge "LFS", 6, 1, lfs ecx, [edi]
  edge "LGS", 6, 1, lgs ecx, [edi]
  pointer 4, 0x1234, DATA
  edge "LES of 16 bits", 4, 1, o16 les cx, [edi]
  pointer 6, .there, CODE
  try "far JMP"
  mov eax, DATA4K
  mov ds, eax
  jmp far [SIZE - 6]
.there:
  done
  try "far JMP across"
  mov eax, DATA4K
  mov ds, eax
  jmp far [SIZE - 5]
  done
  pointer 6, .called, CODE
  try "far CALL"
  mov eax, DATA4K
  mov ds, eax
  call far [SIZE - 6]
.called:
  add esp, 8
  done
  try "far CALL across"
  mov eax, DATA4K
  mov ds, eax
  call far [SIZE - 5]
  done
  clear
  edge "CMPXCHG8B", 8, 1, cmpxchg8b [edi]
  fninit
  edge "FNSTENV", 28, 1, fnstenv [edi]
  edge "FNSTENV of 16 bits", 14, 1, o16 fnstenv [edi]
  fninit
  fnstenv [WINDOW + SIZE - 28]
  edge "FLDENV", 28, 1, fldenv [edi]
  o16 fnstenv [WINDOW + SIZE - 14]
  edge "FLDENV of 16 bits", 14, 1, o16 fldenv [edi]
  edge "FNSAVE", 108, 1, fnsave [edi]
  edge "FRSTOR", 108, 1, frstor [edi]
  edge "FNSAVE of 16 bits", 94, 1, o16 fnsave [edi]
  edge "FRSTOR of 16 bits", 94, 1, o16 frstor [edi]
  fninit
  edge "FXSAVE", 512, 16, fxsave [edi]
  edge "FXRSTOR", 512, 16, fxrstor [edi]
  clear
  mov ecx, 0
  xor edx, edx
  mov eax, 3
  xsetbv
  edge "XSAVE", 576, 64, xsave [edi]
  edge "XRSTOR", 576, 64, xrstor [edi]
  clear
  edge "XSAVEC", 576, 64, xsavec [edi]
  edge "XSAVEOPT", 576, 64, xsaveopt [edi]
  fninit
  fld1
  edge "FSTP of 80 bits", 10, 1, fstp tword [edi]
  fninit
  fldz
  edge "FBSTP", 10, 1, fbstp [edi]
  fninit
  pcmpeqb mm1, mm1
  edge "MASKMOVQ", 8, 1, maskmovq mm0, mm1
  pxor mm1, mm1
  edge "MASKMOVQ of nothing", 8, 1, maskmovq mm0, mm1
  emms
  pxor xmm1, xmm1
  edge "MASKMOVDQU of nothing", 16, 1, maskmovdqu xmm0, xmm1
  edge "MOVNTI", 4, 1, movnti [edi], eax
  edge "LDDQU", 16, 1, lddqu xmm0, [edi]
  edge "CLFLUSH", 1, 1, clflush [edi]

  refused "SGDT", sgdt [edi]
  fninit
  refused "FST", fst dword [edi]
  refused "FISTP", fistp word [edi]
  refused "FNSTCW", fnstcw [edi]
  refused "FNSTSW", fnstsw [edi]
  refused "FNSTENV", fnstenv [edi]
  refused "FNSAVE", fnsave [edi]
  refused "FXSAVE", fxsave [edi]
  refused "XSAVE", xsave [edi]
  refused "MASKMOVDQU", maskmovdqu xmm0, xmm1

; What comes before the operand's fault, whatever that is
%macro earlier 2+
  try %1
  mov eax, DATA4K
  mov ds, eax
  mov edi, SIZE
  %2
  done
%endmacro
  mov eax, cr0
  or eax, 8
  mov cr0, eax
  earlier "FLD with CR0.TS", fld dword [edi]
  earlier "FNSAVE with CR0.TS", fnsave [edi]
  earlier "FXSAVE with CR0.TS", fxsave [edi]
  earlier "XSAVE with CR0.TS", xsave [edi]
  earlier "ADDPS with CR0.TS", addps xmm0, [edi]
  earlier "PADDB with CR0.TS", paddb mm0, [edi]
  earlier "MOV with CR0.TS", mov eax, [edi]
  mov eax, cr0
  xor eax, 12
  mov cr0, eax
  earlier "FLD with CR0.EM", fld dword [edi]
  earlier "ADDPS with CR0.EM", addps xmm0, [edi]
  earlier "PADDB with CR0.EM", paddb mm0, [edi]
  mov eax, cr0
  xor eax, 4
  mov cr0, eax
  mov eax, cr4
  and eax, ~0x200
  mov cr4, eax
  earlier "ADDPS without CR4.OSFXSR", addps xmm0, [edi]
  mov eax, cr4
  or eax, 0x200
  mov cr4, eax
  earlier "divisor beyond the limit", div dword [edi]
  earlier "an offset beyond the limit", mov eax, [SIZE]

  untouched "NOP", nop dword [edi]
  untouched "PREFETCHT0", prefetcht0 [edi]
  untouched "PREFETCHW", prefetchw [edi]
  untouched "LEA", lea eax, [edi]
  untouched "INVLPG", invlpg [edi]
  untouched "UD1", ud1 eax, [edi]
  ret
  guest_end
