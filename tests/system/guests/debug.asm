; Single-step, breakpoints, what holds them back, general detect. SDM 3B chapter 18.
%include "common.inc"

TF equ 0x100
%macro trace 1                      ; how many #DB to go on behind
  mov byte [continue_debug], %1
%endmacro
%macro set_tf 0
  pushfd
  or dword [esp], TF
  popfd
%endmacro
%macro clear_tf 0
  pushfd
  and dword [esp], ~TF
  popfd
%endmacro
%macro arm 3                        ; number, address, DR7's R/W and LEN
  mov eax, %2
  mov dr%1, eax
  mov eax, (2 << (2 * %1)) | (%3 << (16 + 4 * %1))
  mov dr7, eax
%endmacro
%macro disarm 0
  xor eax, eax
  mov dr7, eax
  mov byte [continue_debug], 0
  mov byte [set_resume_flag], 0
%endmacro
EXECUTE equ 0
WRITE1 equ 1
WRITE4 equ 1 + 12
ACCESS2 equ 3 + 4
PORT1 equ 2

main:
  mov eax, 0xffff0ff0
  mov dr6, eax
  trace 20
  try "single-step"
  set_tf
  nop
  mov eax, 5
  clear_tf
  done
  trace 20
  try "single-step over MOV SS"
  mov eax, ss
  set_tf
  mov ss, eax
  nop
  clear_tf
  done
  trace 20
  try "single-step over POP SS and STI"
  push ss
  set_tf
  pop ss
  nop
  clear_tf
  done
  trace 20
  try "single-step over INT"
  set_tf
  int 0x80
  clear_tf
  done
  trace 20
  try "single-step through REP MOVSB"
  mov esi, 0x200000
  mov edi, 0x200100
  mov ecx, 3
  set_tf
  rep movsb
  clear_tf
  show "ecx", ecx
  done
  trace 20
  try "single-step through REPE CMPSB"
  mov esi, 0x200000
  mov edi, 0x200100
  mov byte [0x200001], 1
  mov ecx, 5
  cld
  set_tf
  repe cmpsb
  clear_tf
  show "ecx", ecx
  done
  trace 20
  try "single-step into a fault"
  set_tf
  ud2
  done
  trace 20
  try "single-step over IRET that clears TF"
  push dword 2
  push dword CODE
  push dword .behind1
  set_tf
  iretd
.behind1:
  nop
  done
  trace 20
  try "IRET that sets TF"
  push dword 2 | TF
  push dword CODE
  push dword .behind2
  iretd
.behind2:
  nop
  clear_tf
  done
  disarm

  try "instruction breakpoint, RF set to go on"
  mov byte [continue_debug], 5
  mov byte [set_resume_flag], 1
  arm 0, .here, EXECUTE
  nop
.here:
  mov ebx, 1
  mov eax, 2
  disarm
  done
  try "data breakpoint, write"
  mov byte [continue_debug], 5
  arm 1, 0x200010, WRITE4
  mov eax, [0x200010]
  mov [0x20000f], al
  mov [0x200013], al
  nop
  mov [0x200014], eax
  mov [0x20000e], eax
  nop
  disarm
  done
  try "data breakpoint, read and write of two bytes"
  mov byte [continue_debug], 5
  arm 2, 0x200020, ACCESS2
  mov al, [0x20001f]
  mov al, [0x200021]
  mov al, [0x200022]
  inc dword [0x20001c]
  inc dword [0x20001e]
  push dword [0x200020]
  pop eax
  disarm
  done
  try "data breakpoint in a string"
  mov byte [continue_debug], 9
  mov esi, 0x200000
  mov edi, 0x200100
  mov ecx, 0x100
  arm 3, 0x200180, WRITE1
  cld
  rep movsb
  show "ecx", ecx
  disarm
  done
  try "data breakpoint behind MOV SS"
  mov byte [continue_debug], 5
  mov [0x200030], ss
  arm 0, 0x200030, ACCESS2
  mov ss, [0x200030]
  nop
  nop
  disarm
  done
  try "data breakpoint and single-step at once"
  mov byte [continue_debug], 9
  arm 0, 0x200040, WRITE1
  set_tf
  mov byte [0x200040], 1
  clear_tf
  disarm
  done
  try "disabled breakpoint"
  mov eax, 0x200050
  mov dr0, eax
  mov eax, 0x10000
  mov dr7, eax
  mov byte [0x200050], 1
  done
  try "general detect"
  mov eax, 0x2000
  mov dr7, eax
  mov ebx, dr0
  done
  try "DR7 after it"
  mov eax, dr7
  show "dr7", eax
  done
  try "port breakpoint with DE"
  mov eax, cr4
  or eax, 8
  mov cr4, eax
  mov byte [continue_debug], 5
  arm 0, 0x80, PORT1
  out 0x80, al
  in al, 0x81
  in al, 0x80
  disarm
  done
  try "DR4 with DE"
  mov eax, dr4
  done
  try "DR4 without DE"
  xor eax, eax
  mov cr4, eax
  mov eax, dr4
  show "dr4", eax
  done
  try "INT1"
  db 0xf1
  done
  try "INT3"
  int3
  done
  try "INTO"
  mov eax, 0x7fffffff
  inc eax
  into
  done
  try "BOUND"
  mov dword [0x200060], 1
  mov dword [0x200064], 5
  mov eax, 6
  bound eax, [0x200060]
  done
  ret
  guest_end
