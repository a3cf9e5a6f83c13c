; Fast system calls of protected mode, UMIP, what user mode may see, control and debug registers' corners. SDM 2 and 3A, APM 3.
%include "common.inc"

%macro in_user 0
  mov eax, %%on
  xor ebx, ebx
  jmp enter_user
%%on:
%endmacro
%macro set_msr 2
  mov ecx, %1
  mov eax, %2
  xor edx, edx
  wrmsr
%endmacro
; SYSENTER's four segments, in their order
ENTER_CS equ FREE

main:
  descriptor ENTER_CS, 0, 0xfffff, 0x9b, 0xc
  descriptor ENTER_CS + 8, 0, 0xfffff, 0x93, 0xc
  descriptor ENTER_CS + 16, 0, 0xfffff, 0xfb, 0xc
  descriptor ENTER_CS + 24, 0, 0xfffff, 0xf3, 0xc

  set_msr 0x174, 0
  try "SYSENTER without MSR"
  in_user
  sysenter
  leave_user
  done
  set_msr 0x174, ENTER_CS
  set_msr 0x175, stack0_top
  set_msr 0x176, entered
  try "SYSENTER and SYSEXIT"
  in_user
  mov edx, .returned
  mov ecx, esp
  sysenter
.returned:
  mov ax, cs
  movzx ebx, ax
  mov ax, ss
  movzx ecx, ax
  leave_user
  done
  show "cs", ebx
  call finish_test
  try "SYSEXIT from level 3"
  in_user
  sysexit
  leave_user
  done

  mov ecx, 0xc0000080
  rdmsr
  or eax, 1
  wrmsr
  mov ecx, 0xc0000081
  mov eax, called
  mov edx, ENTER_CS | ((ENTER_CS + 16) << 16)
  wrmsr
  try "SYSCALL and SYSRET"
  in_user
  syscall
.behind:
  mov ax, cs
  movzx ebx, ax
  sub ecx, .behind
  leave_user
  done
  show "cs", ebx
  call finish_test

%macro tells 1
  try %1
  in_user
%endmacro
  tells "SMSW in user mode"
  smsw eax
  leave_user
  done
  tells "SGDT in user mode"
  sgdt [0x200000]
  leave_user
  done
  tells "STR in user mode"
  str eax
  leave_user
  done
  mov eax, cr4
  or eax, 1 << 11
  mov cr4, eax
  tells "SMSW under UMIP"
  smsw eax
  leave_user
  done
  tells "SGDT under UMIP"
  sgdt [0x200000]
  leave_user
  done
  tells "SIDT under UMIP"
  sidt [0x200000]
  leave_user
  done
  tells "SLDT under UMIP"
  sldt [0x200000]
  leave_user
  done
  tells "STR under UMIP"
  str eax
  leave_user
  done
  try "STR under UMIP, level 0"
  str eax
  done

  try "ARPL raises"
  mov eax, 0x10
  mov ebx, 3
  arpl ax, bx
  setz cl
  movzx ecx, cl
  movzx eax, ax
  show "selector", eax
  show "zf", ecx
  done
  try "ARPL leaves"
  mov eax, 0x13
  mov ebx, 1
  arpl ax, bx
  setz cl
  movzx ecx, cl
  movzx eax, ax
  show "selector", eax
  show "zf", ecx
  done

  try "CR0.PG without PE"
  mov eax, 0x80000010
  mov cr0, eax
  done
  try "CR0.NW without CD"
  mov eax, 0x20000011
  mov cr0, eax
  done
  try "reserved bits of CR4"
  mov eax, 1 << 15
  mov cr4, eax
  done
  try "CR1"
  db 0x0f, 0x20, 0xc8
  done
  try "CR5"
  db 0x0f, 0x22, 0xe8
  done
  try "CR8 by LOCK MOV CR0"
  db 0xf0, 0x0f, 0x20, 0xc0
  mov ebx, eax
  done
  try "LMSW cannot clear PE"
  xor eax, eax
  lmsw ax
  mov eax, cr0
  and eax, 0xf
  show "cr0", eax
  done
  try "MOV CR in user mode"
  in_user
  mov eax, cr0
  leave_user
  done
  try "HLT in user mode"
  in_user
  hlt
  leave_user
  done
  try "IN in user mode, IOPL 0"
  in_user
  in al, 0x80
  leave_user
  done
  try "IN in user mode, IOPL 3"
  mov eax, .user1
  mov ebx, 0x3000
  jmp enter_user
.user1:
  in al, 0x80
  cli
  sti
  leave_user
  done
  try "STI of user mode with PVI"
  mov eax, cr4
  or eax, 2
  mov cr4, eax
  mov eax, .user2
  xor ebx, ebx
  jmp enter_user
.user2:
  sti
  pushfd
  pop ebx
  cli
  leave_user
  done
  and ebx, 0x180200
  show "flags", ebx
  call finish_test
  try "alignment check"
  mov eax, cr0
  or eax, 1 << 18
  mov cr0, eax
  mov eax, .user3
  mov ebx, 1 << 18
  jmp enter_user
.user3:
  mov al, [0x200001]
  mov ax, [0x200002]
  mov eax, [0x200004]
  mov eax, [0x200006]
  leave_user
  done
  try "no alignment check at level 0"
  pushfd
  or dword [esp], 1 << 18
  popfd
  mov eax, [0x200001]
  done
  try "too long"
  times 15 db 0x3e
  nop
  done
  try "LOCK where it is not allowed"
  db 0xf0
  nop
  done
  try "RDPMC in user mode"
  in_user
  rdpmc
  leave_user
  done
  try "unknown MSR"
  mov ecx, 0x12345
  rdmsr
  done
  ret
entered:
  mov ax, cs
  movzx ebx, ax
  show "cs", ebx
  mov ax, ss
  movzx ebx, ax
  show "ss", ebx
  pushfd
  pop ebx
  and ebx, 0x200
  show "if", ebx
  sysexit
called:
  mov ax, cs
  movzx ebx, ax
  show "cs", ebx
  mov ax, ss
  movzx ebx, ax
  show "ss", ebx
  cli
  push ecx
  pop ecx
  sysret
  guest_end
