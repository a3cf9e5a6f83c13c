; Virtual-8086 mode: in by IRET, out by interrupts and faults, sensitive instructions by IOPL, VME. SDM 3B chapter 20.
%include "common.inc"

VM equ 1 << 17
IOPL3 equ 3 << 12
TASK equ 0x1000                  ; of the code, whose copy lies at 64 KiB
VIF equ 1 << 19
VIP equ 1 << 20

; Runs 16-bit code between %%from and %%to in a virtual-8086 task with the given EFLAGS.
%macro virtual 1
  mov dword [vflags], VM | 2 | (%1)
  mov esi, %$code
  mov ecx, %$code_end - %$code
  call enter_virtual
  jmp %$after
bits 16
%$code:
%endmacro
%macro end_virtual 0
  int 0x80
%$code_end:
bits 32
%$after:
  done
%endmacro

main:
  try "in and out by INT with a DPL 3 gate"
  virtual IOPL3
  mov ax, ds
  mov bx, ss
  end_virtual
  try "INT with IOPL below 3"
  virtual 0
  end_virtual
  try "INT with a gate of DPL 0"
  virtual IOPL3
  int 0x40
  end_virtual
  try "INT3 with IOPL below 3, gate of DPL 0"
  virtual 0
  int3
  end_virtual
  try "CLI, IOPL 3"
  virtual IOPL3
  cli
  sti
  end_virtual
  try "CLI, IOPL 0"
  virtual 0
  cli
  end_virtual
  try "PUSHF, IOPL 3"
  virtual IOPL3
  pushf
  popf
  pushfd
  popfd
  end_virtual
  try "PUSHF, IOPL 0"
  virtual 0
  pushf
  end_virtual
  try "POPF, IOPL 0"
  virtual 0
  popf
  end_virtual
  try "IRET, IOPL 0"
  virtual 0
  iret
  end_virtual
  try "IRET, IOPL 3"
  virtual IOPL3
  pushf
  push cs
  push word .next1 - %$code
  iret
.next1:
  end_virtual
  try "HLT"
  virtual IOPL3
  hlt
  end_virtual
  try "LGDT"
  virtual IOPL3
  lgdt [0]
  end_virtual
  try "SLDT"
  virtual IOPL3
  sldt ax
  end_virtual
  try "LAR"
  virtual IOPL3
  lar ax, bx
  end_virtual
  try "MOV CR0"
  virtual IOPL3
  mov eax, cr0
  end_virtual
  try "SMSW"
  virtual IOPL3
  smsw ax
  end_virtual
  try "port not in the map"
  virtual IOPL3
  mov dx, 0x5000
  in al, dx
  end_virtual
  mov byte [tss + 0x68 + 32 + 0xa00], 0xfe
  try "port in the map"
  virtual 0
  mov dx, 0x5000
  in al, dx
  mov dx, 0x5001
  in al, dx
  end_virtual
  try "beyond 64 KiB"
  virtual IOPL3
  mov ebx, 0xffff
  mov ax, [bx]
  end_virtual
  try "a stack that wraps in a word"
  virtual IOPL3
  mov sp, 1
  push ax
  end_virtual
  try "far jump and segments"
  virtual IOPL3
  mov ax, 0x1234
  mov es, ax
  jmp TASK - 1:.next2 - %$code + 16
.next2:
  mov ax, cs
  ud2
  end_virtual
  try "undefined opcode"
  virtual IOPL3
  ud2
  end_virtual
  try "LAR beyond the limit"
  virtual IOPL3
  lar ax, [dword 0xffff]
  end_virtual
  try "an offset by SS beyond the limit"
  virtual IOPL3
  mov ax, [ss:0xffff]
  end_virtual
  try "SYSEXIT"
  virtual IOPL3
  sysexit
  end_virtual

; VME
  mov eax, cr4
  or eax, 1
  mov cr4, eax
  mov dword [0x40 * 4], (TASK << 16) | 0x800
  mov dword [0x10800], 0xcf000b0f   ; UD2 there
  try "VME: INT redirected to the task"
  virtual 0
  mov cx, sp
  int 0x40
  end_virtual
  try "VME: what it pushed"
  movzx eax, word [0x20ffa]
  show "ip", eax
  movzx eax, word [0x20ffc]
  show "cs", eax
  movzx eax, word [0x20ffe]
  show "flags", eax
  done
  mov byte [tss + 0x68 + 8], 1      ; 0x40 goes to the monitor
  try "VME: INT not redirected, IOPL 0"
  virtual 0
  int 0x40
  end_virtual
  mov byte [tss + 0x68 + 16], 1     ; and so does 0x80
  try "VME: CLI and STI move VIF"
  virtual 0
  sti
  ud2
  end_virtual
  try "VME: STI with VIP"
  virtual VIP
  sti
  end_virtual
  try "VME: PUSHF shows VIF as IF"
  virtual VIF
  pushf
  pop ax
  ud2
  end_virtual
  try "VME: POPF into VIF"
  virtual 0
  push word 0x0202
  popf
  ud2
  end_virtual
  try "VME: POPF of TF"
  virtual 0
  push word 0x0102
  popf
  end_virtual
  try "VME: PUSHFD, IOPL 0"
  virtual 0
  pushfd
  end_virtual
  ret

enter_virtual:
  mov edi, TASK << 4
  cld
  rep movsb
  mov dword [tss + 4], stack0_top
  push dword 0x4444                 ; GS
  push dword 0x3333                 ; FS
  push dword TASK                ; DS
  push dword 0x2222                 ; ES
  push dword 0x2000                 ; SS
  push dword 0x1000                 ; ESP
  push dword [vflags]
  push dword TASK
  push dword 0
  iretd
vflags: dd 0
  guest_end
