; Call gates with stack switch and parameters, 16 and 32-bit; task switches by JMP, CALL, IRET, task gates and interrupts. SDM 3A chapters 5 and 8.
%include "common.inc"

TSS2 equ FREE
TASK_GATE equ FREE + 8
CALL32 equ FREE + 16
CALL16 equ FREE + 24
ABSENT equ FREE + 32
CALL0 equ FREE + 40
CODE16 equ FREE + 48
CODE3_LOW equ FREE + 56

main:
  descriptor CODE16, LOAD, 0xffff, 0x9b, 0
  descriptor CODE3_LOW, LOAD, 0xffff, 0xfb, 4
  mov eax, tss2
  mov word [gdt + TSS2], 0x67
  mov [gdt + TSS2 + 2], ax
  mov word [gdt + TSS2 + 4], 0x8900
  mov word [gdt + TSS2 + 6], 0
  shr eax, 16
  mov [gdt + TSS2 + 4], al
  mov [gdt + TSS2 + 7], ah
  gate TASK_GATE, TSS2, 0, 0xe5, 0
  gate CALL32, CODE, gate32, 0xec, 2
  gate CALL16, CODE16, gate16 - LOAD, 0xe4, 2
  gate ABSENT, CODE, gate32, 0x6c, 0
  gate CALL0, CODE, gate32, 0x8c, 0

  try "call gate, same level"
  call CALL0:0
  done
  try "call gate, inward with two parameters"
  mov eax, .user1
  xor ebx, ebx
  jmp enter_user
.user1:
  push dword 0x1111
  push dword 0x2222
  call CALL32 + 3:0x9999
  mov ebx, esp
  sub ebx, stack3_top
  leave_user
  done
  show "esp", ebx
  call finish_test
  try "16-bit call gate, inward"
  mov eax, .user2
  xor ebx, ebx
  jmp enter_user
.user2:
  jmp CODE3_LOW + 3:.user2_low - LOAD
.user2_low:
  push word 0x1111
  push word 0x2222
  call CALL16 + 3:0
  leave_user
  done
  try "call gate of level 0 from level 3"
  mov eax, .user3
  xor ebx, ebx
  jmp enter_user
.user3:
  call CALL0 + 3:0
  leave_user
  done
  try "absent call gate"
  call ABSENT:0
  done
  try "jump through a call gate to an inner level"
  mov eax, .user4
  xor ebx, ebx
  jmp enter_user
.user4:
  jmp CALL32 + 3:0
  leave_user
  done
; Tasks
%macro new_task 2                   ; entry, EFLAGS
  mov byte [gdt + TSS2 + 5], 0x89
  mov dword [tss2 + 0x20], %1
  mov dword [tss2 + 0x24], %2
  mov dword [tss2 + 0x38], stack3_top
  mov dword [tss2 + 0x28], 0xaaaa
  mov dword [tss2 + 0x48], DATA
  mov dword [tss2 + 0x4c], CODE
  mov dword [tss2 + 0x50], DATA
  mov dword [tss2 + 0x54], DATA
  mov dword [tss2 + 0x58], DATA
  mov dword [tss2 + 0x5c], DATA
  mov dword [tss2 + 0x60], 0
  mov dword [tss2 + 0x64], 0x680000
%endmacro
%macro show_state 0
  pushfd
  pop ebx
  and ebx, 0x4000
  show "nt", ebx
  mov ebx, cr0
  and ebx, 8
  show "ts", ebx
  clts
  str bx
  movzx ebx, bx
  show "tr", ebx
  mov ebx, [gdt + TSS + 4]
  and ebx, 0xff00
  show "old", ebx
  mov ebx, [gdt + TSS2 + 4]
  and ebx, 0xff00
  show "new", ebx
%endmacro

  mov dword [tss + 4], stack0_top
  mov dword [tss + 8], DATA
  new_task task_returns, 2
  try "CALL to a task and IRET"
  mov ebx, 0x1234
  call TSS2:0
  show "ebx", ebx
  show_state
  done
  new_task task_returns, 2
  try "CALL through a task gate"
  call TASK_GATE:0
  show_state
  done
  new_task task_jumps_back, 2
  try "JMP to a task and back"
  jmp TSS2:0
  show_state
  done
  new_task task_returns, 2
  mov dword [idt + 0x40 * 8], TSS2 << 16
  mov dword [idt + 0x40 * 8 + 4], 0x8500
  try "INT through a task gate"
  int 0x40
  show_state
  done
  new_task task_takes_error, 2
  mov dword [idt + 13 * 8], TSS2 << 16
  mov dword [idt + 13 * 8 + 4], 0x8500
  try "fault through a task gate"
  mov eax, 0xfff8
  mov fs, eax
  done
  mov dword [idt + 13 * 8], CODE << 16
  mov eax, stubs + 13 * STUB_SIZE
  mov [idt + 13 * 8], ax
  mov dword [idt + 13 * 8 + 4], 0x00108e00
  try "a task with the debug trap bit"
  new_task task_returns, 2
  mov word [tss2 + 0x64], 1
  call TSS2:0
  done
  try "a task whose EIP is beyond its code segment"
  new_task task_returns, 2
  mov dword [tss2 + 0x20], 0x10000
  mov dword [tss2 + 0x4c], CODE16
  call TSS2:0
  done
  try "a virtual-8086 task"
  new_task 0x10, 0x23002
  mov byte [0x10010], 0xcd
  mov byte [0x10011], 0x80
  mov dword [tss2 + 4], stack0_top
  mov dword [tss2 + 8], DATA
  mov dword [tss2 + 0x4c], 0x1000
  mov dword [tss2 + 0x50], 0x2000
  mov dword [tss2 + 0x38], 0x1000
  jmp TSS2:0
  done
  mov eax, TSS
  mov byte [gdt + TSS + 5], 0x89
  ltr ax
  clts
  try "busy task"
  mov byte [gdt + TSS2 + 5], 0x8b
  call TSS2:0
  done
  new_task task_returns, 2
  mov word [gdt + TSS2], 0x66
  try "TSS that is too small"
  call TSS2:0
  done
  mov word [gdt + TSS2], 0x67
  new_task task_returns, 2
  mov byte [gdt + TSS2 + 5], 0x09
  try "TSS that is not present"
  call TSS2:0
  done
  try "IRET with NT and a bad link"
  mov word [tss], DATA
  pushfd
  or dword [esp], 0x4000
  popfd
  iretd
  done
  ret

gate32:
  push eax
  mov eax, DATA
  mov ds, eax
  pop eax
  mov ebx, [esp + 8]
  show "first", ebx
  mov ebx, [esp + 12]
  show "second", ebx
  mov ebx, [esp + 16]
  mov ax, cs
  mov ebx, [esp + 4]
  show "caller", ebx
  test ebx, 3
  jz .same
  retf 8
.same:
  retf

bits 16
gate16:
  o32 push eax
  mov eax, DATA
  mov ds, ax
  o32 pop eax
  movzx ebx, word [esp + 4]
  jmp dword CODE:.show
bits 32
.show:
  show "first", ebx
  movzx ebx, word [esp + 6]
  show "second", ebx
  movzx ebx, word [esp + 2]
  show "caller", ebx
  movzx ebx, word [esp + 10]
  show "ss", ebx
  o16 retf 4

task_returns:
  show "eax", eax
  show_state
  movzx ebx, word [tss2]
  show "link", ebx
  iretd
task_jumps_back:
  show_state
  jmp TSS:0
task_takes_error:
  pop ebx
  show "error", ebx
  mov dword [tss + 0x20], .on
  iretd
.on:
  jmp [resume_ip]
align 16
tss2: times 0x68 db 0
  guest_end
