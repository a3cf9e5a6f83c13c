; Each x87 operation between FRSTOR of a given state and FNSAVE of the resulting one, for capture.c.
; uint64_t run(const image *in, void *memory, image *out, uint64_t rflags): RFLAGS afterwards.
bits 64
default rel

%macro BEGIN 0
  frstor [rdi]
  push rcx
  popfq
%endmacro

%macro END 0
  pushfq
  pop rax
  fnsave [rdx]
  ret
%endmacro

; PLAIN name, instruction: one stub, the memory operand at [rsi]
%macro PLAIN 2+
  [section .text]
%%stub:
  BEGIN
  %2
  END
  [section .data]
  times 8 dq %%stub
  [section .rodata]
  db %1, 0
%endmacro

; INDEXED name, first byte, second byte of the encoding with ST(0): eight stubs
%macro INDEXED 3
  %assign %%i 0
  %rep 8
    [section .text]
%%stub %+ %%i:
    BEGIN
    db %2, (%3) + %%i
    END
    [section .data]
    dq %%stub %+ %%i
    %assign %%i %%i + 1
  %endrep
  [section .rodata]
  db %1, 0
%endmacro

section .text
section .data
align 8
global operation_table
operation_table:
section .rodata
global operation_names
operation_names:

; ARITHMETIC name, D8-group column (0 add, 1 mul, 4 sub, 5 subr, 6 div, 7 divr), column of the DC and DE forms
%macro ARITHMETIC 3
  PLAIN {"f", %1, "_m32"}, db 0xd8, 0x06 | %2 << 3
  PLAIN {"f", %1, "_m64"}, db 0xdc, 0x06 | %2 << 3
  PLAIN {"fi", %1, "_m16"}, db 0xde, 0x06 | %2 << 3
  PLAIN {"fi", %1, "_m32"}, db 0xda, 0x06 | %2 << 3
  INDEXED {"f", %1, "_st0_sti"}, 0xd8, 0xc0 | %2 << 3
  INDEXED {"f", %1, "_sti_st0"}, 0xdc, 0xc0 | %3 << 3
  INDEXED {"f", %1, "p_sti_st0"}, 0xde, 0xc0 | %3 << 3
%endmacro

ARITHMETIC "add", 0, 0
ARITHMETIC "mul", 1, 1
ARITHMETIC "sub", 4, 5
ARITHMETIC "subr", 5, 4
ARITHMETIC "div", 6, 7
ARITHMETIC "divr", 7, 6

PLAIN "fcom_m32", fcom dword [rsi]
PLAIN "fcom_m64", fcom qword [rsi]
PLAIN "ficom_m16", ficom word [rsi]
PLAIN "ficom_m32", ficom dword [rsi]
INDEXED "fcom_sti", 0xd8, 0xd0
PLAIN "fcomp_m32", fcomp dword [rsi]
PLAIN "fcomp_m64", fcomp qword [rsi]
PLAIN "ficomp_m16", ficomp word [rsi]
PLAIN "ficomp_m32", ficomp dword [rsi]
INDEXED "fcomp_sti", 0xd8, 0xd8
PLAIN "fcompp", fcompp
INDEXED "fucom_sti", 0xdd, 0xe0
INDEXED "fucomp_sti", 0xdd, 0xe8
PLAIN "fucompp", fucompp
INDEXED "fcomi_sti", 0xdb, 0xf0
INDEXED "fcomip_sti", 0xdf, 0xf0
INDEXED "fucomi_sti", 0xdb, 0xe8
INDEXED "fucomip_sti", 0xdf, 0xe8
PLAIN "ftst", ftst
PLAIN "fxam", fxam

PLAIN "fld_m32", fld dword [rsi]
PLAIN "fld_m64", fld qword [rsi]
PLAIN "fld_m80", fld tword [rsi]
PLAIN "fild_m16", fild word [rsi]
PLAIN "fild_m32", fild dword [rsi]
PLAIN "fild_m64", fild qword [rsi]
PLAIN "fbld_m80", fbld tword [rsi]
INDEXED "fld_sti", 0xd9, 0xc0
PLAIN "fld1", fld1
PLAIN "fldl2t", fldl2t
PLAIN "fldl2e", fldl2e
PLAIN "fldpi", fldpi
PLAIN "fldlg2", fldlg2
PLAIN "fldln2", fldln2
PLAIN "fldz", fldz

PLAIN "fst_m32", fst dword [rsi]
PLAIN "fst_m64", fst qword [rsi]
INDEXED "fst_sti", 0xdd, 0xd0
PLAIN "fstp_m32", fstp dword [rsi]
PLAIN "fstp_m64", fstp qword [rsi]
PLAIN "fstp_m80", fstp tword [rsi]
INDEXED "fstp_sti", 0xdd, 0xd8
PLAIN "fist_m16", fist word [rsi]
PLAIN "fist_m32", fist dword [rsi]
PLAIN "fistp_m16", fistp word [rsi]
PLAIN "fistp_m32", fistp dword [rsi]
PLAIN "fistp_m64", fistp qword [rsi]
PLAIN "fisttp_m16", fisttp word [rsi]
PLAIN "fisttp_m32", fisttp dword [rsi]
PLAIN "fisttp_m64", fisttp qword [rsi]
INDEXED "fstpnce_sti", 0xd9, 0xd8
PLAIN "fbstp_m80", fbstp tword [rsi]

INDEXED "fxch_sti", 0xd9, 0xc8
INDEXED "fcmovb_sti", 0xda, 0xc0
INDEXED "fcmove_sti", 0xda, 0xc8
INDEXED "fcmovbe_sti", 0xda, 0xd0
INDEXED "fcmovu_sti", 0xda, 0xd8
INDEXED "fcmovnb_sti", 0xdb, 0xc0
INDEXED "fcmovne_sti", 0xdb, 0xc8
INDEXED "fcmovnbe_sti", 0xdb, 0xd0
INDEXED "fcmovnu_sti", 0xdb, 0xd8

PLAIN "fchs", fchs
PLAIN "fabs", fabs
PLAIN "fsqrt", fsqrt
PLAIN "frndint", frndint
PLAIN "fscale", fscale
PLAIN "fxtract", fxtract
PLAIN "fprem", fprem
PLAIN "fprem1", fprem1
PLAIN "f2xm1", f2xm1
PLAIN "fyl2x", fyl2x
PLAIN "fyl2xp1", fyl2xp1
PLAIN "fpatan", fpatan
PLAIN "fsin", fsin
PLAIN "fcos", fcos
PLAIN "fsincos", fsincos
PLAIN "fptan", fptan

PLAIN "fincstp", fincstp
PLAIN "fdecstp", fdecstp
INDEXED "ffree_sti", 0xdd, 0xc0
INDEXED "ffreep_sti", 0xdf, 0xc0
PLAIN "fnop", fnop
PLAIN "fwait", fwait
PLAIN "emms", emms
PLAIN "fldcw", fldcw [rsi]
PLAIN "fnstcw", fnstcw [rsi]
PLAIN "fnstsw", fnstsw [rsi]
PLAIN "fnclex", fnclex
PLAIN "fninit", fninit
PLAIN "fldenv_protected32", fldenv [rsi]
PLAIN "fldenv_protected16", o16 fldenv [rsi]
PLAIN "fnstenv_protected32", fnstenv [rsi]
PLAIN "fnstenv_protected16", o16 fnstenv [rsi]
PLAIN "frstor_protected32", frstor [rsi]
PLAIN "frstor_protected16", o16 frstor [rsi]
PLAIN "fnsave_protected32", fnsave [rsi]
PLAIN "fnsave_protected16", o16 fnsave [rsi]

; Encodings that alias others, to see that they do.
INDEXED "alias:fcom_sti:dcd0", 0xdc, 0xd0
INDEXED "alias:fcomp_sti:dcd8", 0xdc, 0xd8
INDEXED "alias:fcomp_sti:ded0", 0xde, 0xd0
INDEXED "alias:fxch_sti:ddc8", 0xdd, 0xc8
INDEXED "alias:fxch_sti:dfc8", 0xdf, 0xc8
INDEXED "alias:fstp_sti:dfd0", 0xdf, 0xd0
INDEXED "alias:fstp_sti:dfd8", 0xdf, 0xd8
PLAIN "fneni", db 0xdb, 0xe0
PLAIN "alias:fneni:dbe1", db 0xdb, 0xe1
PLAIN "alias:fneni:dbe4", db 0xdb, 0xe4

PLAIN "fxsave", fxsave [rsi]
PLAIN "fxsave64", fxsave64 [rsi]
PLAIN "fxrstor", fxrstor [rsi]
PLAIN "fxrstor64", fxrstor64 [rsi]

section .rodata
  db 0

section .note.GNU-stack noalloc noexec nowrite progbits
