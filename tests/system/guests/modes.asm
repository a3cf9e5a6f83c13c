; Real mode and 16-bit protected mode: what an operand-size or address-size prefix changes, limits, stacks and interrupts of 16 bits, unreal mode;
; what a prefix of 16 bits leaves alone in 32-bit code; hypercalls in all legacy modes. SDM 1 3.3, SDM 3A chapter 9.9, SDM 3B chapters 20 and 21.
%include "common.inc"

CODE16 equ FREE
DATA16 equ FREE + 8
FLAT16 equ FREE + 16             ; 4 GiB, for unreal mode
HIGH_LIMIT equ FREE + 24
REAL equ 0xffff                  ; its segment reaches what is loaded at 1 MiB
REAL_BASE equ 0xffff0
%define at16(label) ((label) - header)
%define real(label) ((label) - header + LOAD - REAL_BASE)

; Into 16-bit protected mode and back; EAX and EBP go.
%macro sixteen 0
  mov [kept_esp], esp
  mov eax, at16(stack16_top)
  jmp CODE16:at16(%%in)
bits 16
%%in:
  mov bp, DATA16
  mov ds, bp
  mov es, bp
  mov ss, bp
  mov esp, eax
%endmacro
%macro thirty_two 0
  jmp dword CODE:%%out
bits 32
%%out:
  mov ebp, DATA
  mov ds, ebp
  mov es, ebp
  mov fs, ebp
  mov gs, ebp
  mov ss, ebp
  mov esp, [kept_esp]
%endmacro
; Into real mode and back.
%macro to_real 0
  mov [kept_esp], esp
  jmp CODE16:at16(%%in)
bits 16
%%in:
  mov bp, DATA16
  mov ds, bp
  mov es, bp
  mov fs, bp
  mov gs, bp
  mov ss, bp
  lidt [at16(real_idt)]
  mov ebp, cr0
  and ebp, ~1
  mov cr0, ebp
  jmp REAL:real(%%real)
%%real:
  mov bp, REAL
  mov ds, bp
  mov es, bp
  mov ss, bp
  mov esp, real(stack16_top)
%endmacro
%macro from_real 0
  mov bp, REAL
  mov ds, bp
  o32 lidt [real(idt_pointer)]
  mov ebp, cr0
  or ebp, 1
  mov cr0, ebp
  thirty_two
%endmacro

main:
  descriptor CODE16, LOAD, 0xffff, 0x9b, 0
  descriptor DATA16, LOAD, 0xffff, 0x93, 0
  descriptor FLAT16, 0, 0xfffff, 0x93, 8
  ; The real-mode table: a stub of 8 bytes for each vector.
  mov edi, 0
  mov eax, (REAL << 16) + real(real_stubs)
  mov ecx, 32
.vectors:
  mov [edi], eax
  add edi, 4
  add eax, 8
  loop .vectors
  mov dword [0x40 * 4], (REAL << 16) + real(real_handler)

  ; 32-bit code with prefixes of 16 bits, above 64 KiB
  try "a branch of 16 bits that is not taken"
  xor eax, eax
  db 0x66, 0x0f, 0x85, 0, 0
  db 0x66
  jnz .here
.here:
  mov ecx, 1
  db 0x66
  loop .here2
.here2:
  mov ecx, 5
  db 0x66, 0xe3, 0
  done
  try "POP of 16 bits into segment registers"
  push word DATA
  push word DATA
  push word DATA
  o16 pop ds
  o16 pop es
  o16 pop fs
  mov bx, fs
  movzx ebx, bx
  show "fs", ebx
  done
  try "INT of 16 bits"
  o16 int 0x80
  done

  try "16-bit protected mode: sizes of operands and addresses"
  sixteen
  mov ebx, 0x12345678
  mov bx, -1
  mov ecx, 0x10000
  mov cx, 2
  mov edx, esp
  push bx
  o32 push ebx
  sub dx, sp
  mov sp, at16(stack16_top)
  lea esi, [bx + 2]
  a32 lea edi, [ebx + ecx]
  jcxz .taken
  a32 loop .counted
.counted:
.taken:
  thirty_two
  show "ebx", ebx
  show "ecx", ecx
  show "pushed", edx
  show "lea", esi
  show "lea32", edi
  done
  try "16-bit calls"
  sixteen
  mov dx, sp
  call .near16
  call dword .near32
  call CODE16:at16(.far16)
  call dword CODE16:at16(.far32)
  jmp .called
.near16:
  mov bx, dx
  sub bx, sp
  ret
.near32:
  mov cx, dx
  sub cx, sp
  o32 ret
.far16:
  mov si, dx
  sub si, sp
  retf
.far32:
  mov di, dx
  sub di, sp
  o32 retf
.called:
  movzx ebx, bx
  movzx ecx, cx
  movzx esi, si
  movzx edi, di
  sub dx, sp
  movzx edx, dx
  thirty_two
  show "near", ebx
  show "near32", ecx
  show "far", esi
  show "far32", edi
  show "left", edx
  done
  try "16-bit stack frames"
  sixteen
  mov esp, 0x77770000 + at16(stack16_top)
  mov bx, 0x1234
  pusha
  enter 4, 1
  mov [at16(scratch)], sp
  leave
  popa
  pushf
  pop dx
  and edx, 2
  mov esi, esp
  thirty_two
  mov cx, [scratch]
  sub cx, at16(stack16_top)
  movzx ecx, cx
  sub si, at16(stack16_top)
  show "enter", ecx
  show "esp", esi
  show "flags", edx
  done
  try "an interrupt gate of 16 bits"
  mov dword [idt + 0x41 * 8], (CODE16 << 16) + at16(gate16)
  mov dword [idt + 0x41 * 8 + 4], 0x8600
  sixteen
  mov dx, sp
  stc
  int 0x41
  setc cl
  movzx ecx, cl
  thirty_two
  show "pushed", ebx
  show "cf", ecx
  done
  try "a word at the end of the segment"
  sixteen
  mov bx, [0xfffe]
  mov bx, [0xffff]
  thirty_two
  done
  try "an index that wraps"
  sixteen
  mov bx, 0xffff
  mov si, 1 + at16(wrapped)
  mov cx, [bx + si]
  movzx ecx, cx
  thirty_two
  show "cx", ecx
  done
  try "an index of 32 bits that does not"
  sixteen
  mov ebx, 0xffff
  mov cx, [ebx + 1]
  thirty_two
  done
  try "POP beyond the stack"
  sixteen
  mov sp, 0xffff
  pop bx
  thirty_two
  done
  try "strings with addresses of 16 bits"
  sixteen
  mov esi, 0x1000ffff
  mov edi, 0x20000000 + at16(scratch)
  mov ecx, 0x30000003
  cld
  rep movsb
  thirty_two
  show "esi", esi
  sub edi, at16(scratch)
  show "edi", edi
  show "ecx", ecx
  done
  try "a base of 24 bits"
  sgdt [scratch]
  mov byte [scratch + 5], 0xff
  sixteen
  lgdt [at16(scratch)]
  thirty_two
  sgdt [scratch]
  movzx ebx, byte [scratch + 5]
  show "top", ebx
  done

  try "real mode: INT and IRET"
  to_real
  mov dx, sp
  stc
  int 0x40
  setc cl
  movzx ecx, cl
  movzx ebx, bx
  movzx esi, word [es:real(stack16_top) - 4]
  from_real
  show "pushed", ebx
  show "cf", ecx
  show "cs", esi
  done
  try "real mode: segments"
  to_real
  mov bx, 0x1234
  mov fs, bx
  mov dword [fs:0x10], 0x89abcdef
  mov bx, 0x1235
  mov gs, bx
  mov ebx, [gs:0]
  from_real
  show "ebx", ebx
  done
  try "real mode: a word at the end of the segment"
  to_real
  mov bx, [0xffff]
  from_real
  done
  try "real mode: UD2"
  to_real
  ud2
  from_real
  done
  try "real mode: LLDT"
  to_real
  lldt bx
  from_real
  done
  try "real mode: ARPL"
  to_real
  arpl bx, cx
  from_real
  done
  try "real mode: LAR"
  to_real
  lar bx, cx
  from_real
  done
  try "real mode: SYSENTER"
  to_real
  sysenter
  from_real
  done
  try "real mode: division by zero"
  to_real
  xor bx, bx
  div bx
  from_real
  done
  try "real mode: BOUND"
  to_real
  mov bx, 5
  bound bx, [real(bounds)]
  from_real
  done
  try "real mode: INTO"
  to_real
  mov al, 0x7f
  inc al
  into
  from_real
  done
  try "real mode: single-step"
  to_real
  push word 0x102
  popf
  nop
  from_real
  done
  try "real mode: SMSW, LMSW, CPL"
  to_real
  smsw bx
  and bx, 1
  pushfd
  o32 pop ecx
  and ecx, 0x3000
  mov cr2, ecx
  from_real
  movzx ebx, bx
  show "pe", ebx
  show "iopl", ecx
  done
  try "unreal mode"
  mov dword [0x200010], 0x600df00d
  sixteen
  mov bp, FLAT16
  mov fs, bp
  mov ebp, cr0
  and ebp, ~1
  mov cr0, ebp
  jmp REAL:real(.unreal)
.unreal:
  mov ebp, 0x200010
  mov ebx, [fs:ebp]
  mov bp, REAL
  mov ds, bp
  mov ebp, cr0
  or ebp, 1
  mov cr0, ebp
  thirty_two
  show "ebx", ebx
  done

%macro hypercalls 0
  mov eax, 0x1234ffff
  vmcall
  mov ebx, eax
  mov eax, 0x1234ffff
  vmmcall
  mov ecx, eax
%endmacro
  try "hypercalls of 32-bit code"
  hypercalls
  show "vmcall", ebx
  show "vmmcall", ecx
  done
  try "hypercalls of 16-bit protected mode"
  sixteen
  hypercalls
  thirty_two
  show "vmcall", ebx
  show "vmmcall", ecx
  done
  try "hypercalls of real mode"
  to_real
  hypercalls
  from_real
  show "vmcall", ebx
  show "vmmcall", ecx
  done
  try "hypercalls at level 3"
  mov eax, .user
  xor ebx, ebx
  jmp enter_user
.user:
  hypercalls
  leave_user
  done
  show "vmcall", ebx
  show "vmmcall", ecx
  call finish_test
  try "hypercalls of virtual-8086 mode"
  push dword 0
  push dword 0
  push dword 0x1000
  push dword 0
  push dword 0
  push dword 0
  push dword (1 << 17) | (3 << 12) | 2
  push dword REAL
  push dword real(.virtual)
  iretd
bits 16
.virtual:
  hypercalls
  int 0x80
bits 32
  done
  show "vmcall", ebx
  show "vmmcall", ecx
  call finish_test
  ; Where emulations that know no limits go astray
  try "real mode: a vector beyond the table"
  mov word [real_idt], 0x40 * 4 - 1
  to_real
  int 0x40
  from_real
  done
  mov word [real_idt], 0x3ff
  try "real mode: code at its end"
  mov byte [REAL_BASE + 0xffff], 0x90
  to_real
  mov bx, 0xffff
  jmp bx
  from_real
  done
  try "a jump beyond the limit"
  sixteen
  jmp dword 0x10000
  thirty_two
  done
  ret

bits 16
gate16:
  mov bx, dx
  sub bx, sp
  movzx ebx, bx
  clc
  iret
real_handler:
  mov bx, dx
  sub bx, sp
  clc
  iret
real_stubs:
%assign v 0
%rep 32
  align 8, db 0x90
  push word v
  jmp near real_fault
%assign v v + 1
%endrep
; Vector, IP, CS, flags
real_fault:
  cli
  pop bx
  pop cx
  pop dx
  pop si
  movzx ebx, bx
  movzx ecx, cx
  movzx edx, dx
  and esi, 0x7300
  from_real
  show "vector", ebx
  show "ip", ecx
  show "cs", edx
  show "fl", esi
  mov eax, DATA
  mov esp, [resume_sp]
  jmp [resume_ip]

bounds: dw 1, 4
real_idt: dw 0x3ff, 0, 0
align 8
kept_esp: dd 0
scratch: times 4 dd 0
wrapped: dw 0x4321
times 512 db 0
stack16_top: times 16 db 0
  guest_end
