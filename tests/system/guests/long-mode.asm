; 64-bit mode as level 0 knows it: call gates, SYSCALL from compatibility mode, canonical addresses, IST, NMIs, the APIC's base, the order of
; exceptions; before it a 16-bit TSS. SDM 3A chapters 4 to 8, APM 2 chapters 4 to 8.
%include "common.inc"

CODE64 equ FREE                       ; SYSCALL's code and stack segment lie side by side
DATA64 equ FREE + 8
USER32 equ FREE + 16                  ; SYSRET's three as well
USER_DATA equ FREE + 24
USER64 equ FREE + 32
TSS64 equ FREE + 40
GATE64 equ FREE + 56
GATE_TO_32 equ FREE + 72
GATE_BAD equ FREE + 88
TSS16 equ FREE + 104
CODE16 equ FREE + 112

MSR_APIC_BASE equ 0x1b
MSR_EFER equ 0xc0000080
MSR_STAR equ 0xc0000081
MSR_LSTAR equ 0xc0000082
MSR_CSTAR equ 0xc0000083
MSR_SFMASK equ 0xc0000084
MSR_FS_BASE equ 0xc0000100
MSR_KERNEL_GS equ 0xc0000102
APIC equ 0xfee00000

%macro try64 1
  mov qword [resume_ip64], %%end
  mov [resume_sp64], rsp
  call print64
  db %1, ":", 0
%push try
%define %$end %%end
%endmacro
%macro done64 0
  call print64
  db " ok", 0
%$end:
  call newline64
%pop
%endmacro
%macro show64 2
  push rax
  mov rax, %2
  call print64
  db " ", %1, "=", 0
  call hex64
  pop rax
%endmacro
%macro user64 1                       ; goes on at level 3, with flags
  push USER_DATA + 3
  push stack3_top
  push %1 | 2
  push USER64 + 3
  push %%there
  iretq
%%there:
%endmacro
%macro user32 0
  push USER_DATA + 3
  push stack3_top
  push 2
  push USER32 + 3
  push %%there
  iretq
bits 32
%%there:
%endmacro
%macro msr 2                          ; number, value
  mov ecx, %1
  mov rax, %2
  mov rdx, rax
  shr rdx, 32
  wrmsr
%endmacro

main:
  descriptor CODE16, LOAD, 0xffff, 0x9b, 0
  mov eax, tss16
  mov word [gdt + TSS16], 0x2b
  mov [gdt + TSS16 + 2], ax
  mov word [gdt + TSS16 + 6], 0
  shr eax, 16
  mov [gdt + TSS16 + 4], al
  mov byte [gdt + TSS16 + 5], 0x81
  mov word [tss16 + 0x0e], task16 - LOAD
  mov word [tss16 + 0x10], 2
  mov word [tss16 + 0x12], 0x1234
  mov word [tss16 + 0x1a], 0x800
  mov word [tss16 + 0x22], DATA
  mov word [tss16 + 0x24], CODE16
  mov word [tss16 + 0x26], DATA
  mov word [tss16 + 0x28], DATA
  try "CALL to a 16-bit task and IRET"
  mov eax, 0x55aa55aa
  call TSS16:0
  show "eax", eax
  done
  try "what it left in its TSS"
  movzx eax, word [tss16 + 0x0e]
  sub eax, task16 - LOAD
  show "ip", eax
  movzx eax, word [tss16 + 0x12]
  show "ax", eax
  movzx eax, word [tss16]
  show "link", eax
  done
  try "16-bit TSS that is too small"
  mov byte [gdt + TSS16], 0x2a
  call TSS16:0
  done
  try "level 3 to 0 by a 16-bit TSS"
  mov byte [gdt + TSS16], 0x2b
  mov byte [gdt + TSS16 + 5], 0x81
  mov word [tss16 + 2], 0x700
  mov word [tss16 + 4], DATA
  mov eax, TSS16
  ltr ax
  mov dword [0x6fc], 0
  mov eax, .user
  xor ebx, ebx
  jmp enter_user
.user:
  int 0x80
  done
  try "stack it had used"
  mov eax, [0x700 - 4]
  show "ss", eax
  done
  mov byte [gdt + TSS + 5], 0x89
  mov eax, TSS
  ltr ax
  try "VMCALL in 32-bit code"
  mov eax, 0xffff
  vmcall
  show "eax", eax
  done
  try "VMMCALL in 32-bit code"
  mov eax, 0xffff
  vmmcall
  show "eax", eax
  done

  ; Long mode: 4 GiB one to one by 2-MiB pages that everybody may use.
  mov edi, pml4
  mov eax, pdpt + 7
  mov [edi], eax
  mov ecx, 4
  mov edi, pdpt
  mov eax, pd + 7
.pointers:
  mov [edi], eax
  add eax, 4096
  add edi, 8
  loop .pointers
  mov ecx, 2048
  mov edi, pd
  mov eax, 0x87
.pages:
  mov [edi], eax
  add eax, 0x200000
  add edi, 8
  loop .pages
  mov dword [pd + 8 * 100], 0         ; 200 MiB: not there
  descriptor CODE64, 0, 0xfffff, 0x9b, 10
  descriptor DATA64, 0, 0xfffff, 0x93, 12
  descriptor USER32, 0, 0xfffff, 0xfb, 12
  descriptor USER_DATA, 0, 0xfffff, 0xf3, 12
  descriptor USER64, 0, 0xfffff, 0xfb, 10
  gate GATE64, CODE64, in_gate, 0xec, 0
  gate GATE_TO_32, CODE, in_gate, 0xec, 0
  gate GATE_BAD, CODE64, in_gate, 0xec, 0
  mov dword [gdt + GATE_BAD + 12], 0x100
  mov eax, tss64
  mov word [gdt + TSS64], 0x67
  mov [gdt + TSS64 + 2], ax
  mov word [gdt + TSS64 + 6], 0
  shr eax, 16
  mov [gdt + TSS64 + 4], al
  mov byte [gdt + TSS64 + 5], 0x89
  mov dword [gdt + TSS64 + 8], 0
  mov dword [tss64 + 4], stack0_top
  mov dword [tss64 + 0x24], ist1_top
  mov word [tss64 + 0x66], 0x68
  mov eax, cr4
  or eax, 0x620
  mov cr4, eax
  mov eax, pml4
  mov cr3, eax
  mov ecx, MSR_EFER
  xor edx, edx
  mov eax, 0x101
  wrmsr
  mov eax, cr0
  or eax, 0x80010020
  mov cr0, eax
  jmp CODE64:long_start

bits 16
task16:
  mov al, 'T'
  out 0xe9, al
  iret
bits 64

print64:
  xchg rsi, [rsp]
  push rax
.next:
  lodsb
  test al, al
  jz .end
  out 0xe9, al
  jmp .next
.end:
  pop rax
  xchg rsi, [rsp]
  ret
hex64:                                ; RAX
  push rax
  push rbx
  push rcx
  mov rbx, rax
  mov ecx, 16
.digit:
  rol rbx, 4
  mov eax, ebx
  and eax, 15
  mov al, [digits + rax]
  out 0xe9, al
  loop .digit
  pop rcx
  pop rbx
  pop rax
  ret
newline64:
  mov ax, DATA64
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov al, 10
  out 0xe9, al
  ret

align 16
stubs64:
%assign v 0
%rep 256
  align 16, db 0x90
%if v == 8 || (v >= 10 && v <= 14) || v == 17
  nop
  nop
%else
  push byte 0
%endif
  push v
  jmp near handler64
%assign v v + 1
%endrep

; Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS
handler64:
  push rax
  cmp qword [rsp + 8], 0x80
  je .back
  mov rax, [rsp + 8]
  call print64
  db " #", 0
  call hex64
  show64 "err", [rsp + 24]
  show64 "ip", [rsp + 32]
  show64 "cs", [rsp + 40]
  mov rax, [rsp + 40]
  and eax, 0x27700
  show64 "fl", rax
  cmp qword [rsp + 8], 14
  jne .no_cr2
  mov rax, cr2
  show64 "cr2", rax
.no_cr2:
  cmp qword [rsp + 8], 1
  jne .leave
  mov rax, dr6
  show64 "dr6", rax
  mov eax, 0xffff0ff0
  mov dr6, rax
  cmp byte [continue_debug], 0
  je .leave
  dec byte [continue_debug]
  pop rax
  add rsp, 16
  iretq
.back:
  call print64
  db " back", 0
.leave:
  mov ax, DATA64
  mov ss, ax
  mov rsp, [resume_sp64]
  push 2
  popfq
  jmp [resume_ip64]

in_gate:
  show64 "rsp", rsp
  show64 "cs", [rsp + 16]
  mov rax, ss
  show64 "ss", rax
  retfq

syscall_entry:
  mov rbx, rsp
  mov rsp, stack0_top
  show64 "rcx", rcx
  show64 "r11", r11
  mov rax, cs
  show64 "cs", rax
  mov rsp, rbx
  test byte [returns_wide], 1
  jz .narrow
  o64 sysret
.narrow:
  sysret

; Sends an NMI to itself the first time, and tells that it does not nest.
nmi_entry:
  call print64
  db " in", 0
  cmp byte [more_nmis], 0
  je .end
  dec byte [more_nmis]
  mov eax, APIC + 0x300
  mov dword [rax], 0x40400
  nop
  nop
  cmp byte [returns_early], 0
  je .end
  ; An IRET to the next instruction ends the blocking.
  mov rbx, rsp
  mov rax, ss
  push rax
  push rbx
  push 2
  push CODE64
  push .end
  iretq
.end:
  call print64
  db " out", 0
  iretq

align 8
resume_ip64: dq 0
resume_sp64: dq 0
far_gate: dd 0
  dw GATE64
far_gate3: dd 0
  dw GATE64 + 3
far_gate32: dd 0
  dw GATE_TO_32
far_bad: dd 0
  dw GATE_BAD
gdt64_pointer: dw GDT_ENTRIES * 8 - 1
  dq gdt
idt64_pointer: dw 4095
  dq idt64
returns_wide: db 1
more_nmis: db 0
returns_early: db 0
LOW equ 0x0000800000000000
WIDE equ 0x0100000000000000            ; not canonical with 57 bits either

long_start:
  mov ax, DATA64
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov rsp, stack_top
  mov edi, idt64
  mov eax, stubs64
  mov ecx, 256
.gates:
  mov [rdi], ax
  mov word [rdi + 2], CODE64
  mov dword [rdi + 4], 0x8e00
  mov edx, eax
  shr edx, 16
  mov [rdi + 6], dx
  mov qword [rdi + 8], 0
  add eax, 16
  add edi, 16
  loop .gates
  mov byte [idt64 + 0x80 * 16 + 5], 0xee
  lidt [idt64_pointer]
  mov ax, TSS64
  ltr ax

  try64 "64-bit call gate, same level"
  call dword far [far_gate]
  done64
  try64 "64-bit call gate, from level 3"
  user64 0
  call dword far [far_gate3]
  int 0x80
  done64
  try64 "call gate to 32-bit code"
  call dword far [far_gate32]
  done64
  try64 "call gate whose upper half has a type"
  call dword far [far_bad]
  done64
  try64 "jump through a 64-bit gate"
  push .behind_gate
  mov eax, jumped
  mov [gdt + GATE64], ax
  shr eax, 16
  mov [gdt + GATE64 + 6], ax
  jmp dword far [far_gate]
.behind_gate:
  done64
  try64 "read at a non-canonical address"
  mov rax, LOW
  mov al, [rax]
  done64
  try64 "the last canonical address is only not there"
  mov rax, LOW - 1
  mov al, [rax]
  done64
  try64 "push at a non-canonical address, level 3"
  user64 0
  mov rsp, LOW + 8
  push rax
  done64
  try64 "read by RBP at a non-canonical address, level 3"
  user64 0
  mov rbp, LOW
  mov al, [rbp]
  done64
  try64 "jump to a non-canonical address"
  mov rax, LOW
  jmp rax
  done64
  try64 "RET to a non-canonical address"
  mov rax, LOW
  push rax
  ret
  done64
  try64 "IRETQ to a non-canonical address"
  push DATA64
  push stack_top
  push 2
  push CODE64
  mov rax, LOW
  push rax
  iretq
  done64
  try64 "IRETQ to a null stack segment at level 3"
  push 0
  push stack3_top
  push 2
  push USER64 + 3
  push .nowhere
  iretq
.nowhere:
  done64
  try64 "WRMSR of LSTAR, not canonical"
  msr MSR_LSTAR, WIDE
  done64
  try64 "WRMSR of FS.BASE, not canonical"
  msr MSR_FS_BASE, WIDE
  done64
  try64 "WRMSR of KERNEL_GS_BASE, not canonical"
  msr MSR_KERNEL_GS, -WIDE - 1
  done64
  try64 "WRMSR of KERNEL_GS_BASE, canonical with 57 bits alone"
  msr MSR_KERNEL_GS, LOW
  done64
  try64 "WRMSR of SFMASK, bits above 31"
  msr MSR_SFMASK, 0x100000000
  done64
  try64 "WRMSR of EFER, reserved bit"
  msr MSR_EFER, 0x10501
  done64
  try64 "WRMSR of EFER, LME off while paging"
  msr MSR_EFER, 0x401
  done64
  msr MSR_EFER, 0x501
  try64 "LGDT of a non-canonical base"
  sub rsp, 16
  mov word [rsp], 0x200
  mov rax, WIDE
  mov [rsp + 2], rax
  lgdt [rsp]
  lgdt [gdt64_pointer]
  done64
  lgdt [gdt64_pointer]
  try64 "CR0, upper half"
  mov rax, cr0
  bts rax, 32
  mov cr0, rax
  done64
  try64 "CR8, reserved bits"
  mov eax, 0x10
  mov cr8, rax
  done64
  try64 "DR7, upper half"
  mov rax, 0x100000400
  mov dr7, rax
  done64
  try64 "INTO, PUSHA and BOUND are gone"
  db 0xce
  done64
  try64 "ICEBP"
  db 0xf1
  done64
  try64 "VMCALL"
  mov eax, 0xffff
  vmcall
  show64 "rax", rax
  done64
  try64 "VMMCALL"
  mov eax, 0xffff
  vmmcall
  show64 "rax", rax
  done64
  try64 "VMMCALL at level 3"
  user64 0
  mov eax, 0xffff
  vmmcall
  int 0x80
  done64
  try64 "VMCALL and VMMCALL of compatibility mode"
  mov rbx, 0x5a5a5a5a0000ffff
  mov rax, rbx
  push CODE
  push .compatible
  o64 retf
bits 32
.compatible:
  vmcall
  jmp CODE64:.between
bits 64
.between:
  xchg rax, rbx
  push CODE
  push .compatible2
  o64 retf
bits 32
.compatible2:
  vmmcall
  jmp CODE64:.back
bits 64
.back:
  show64 "vmcall", rbx
  show64 "vmmcall", rax
  done64
  try64 "VMMCALL of compatibility mode at level 3"
  user32
  mov eax, 0xffff
  vmmcall
  mov ebx, eax
  int 0x80
bits 64
  done64
  show64 "rax", rbx
  call newline64
  try64 "IST1"
  mov byte [idt64 + 3 * 16 + 4], 1
  mov eax, ist_entry
  mov [idt64 + 3 * 16], ax
  shr eax, 16
  mov [idt64 + 3 * 16 + 6], ax
  int3
  done64

  msr MSR_STAR, ((USER32 + 3) << 48) | (CODE64 << 32)
  msr MSR_LSTAR, syscall_entry
  msr MSR_CSTAR, syscall_entry
  msr MSR_SFMASK, 0x40700
  try64 "SYSCALL and SYSRET of 64-bit code"
  user64 0x0c5
  syscall
  pushfq
  pop r8
  mov rbx, cs
  mov rdx, ss
  int 0x80
  done64
  show64 "flags", r8
  show64 "cs", rbx
  show64 "ss", rdx
  call newline64
  try64 "SYSCALL of compatibility mode"
  mov byte [returns_wide], 0
  user32
  syscall
  mov ebx, cs
  int 0x80
bits 64
  done64
  show64 "cs", rbx
  call newline64
  try64 "SYSRET to a non-canonical address"
  mov rcx, LOW
  mov r11d, 2
  o64 sysret
  done64
  try64 "SYSCALL without EFER.SCE"
  msr MSR_EFER, 0x500
  syscall
  done64
  msr MSR_EFER, 0x501
  try64 "SYSENTER of 64-bit code"
  sysenter
  done64
  try64 "SWAPGS at level 3"
  user64 0
  swapgs
  done64
  try64 "unaligned at level 3 with AC, CR0.AM"
  mov rax, cr0
  bts rax, 18
  mov cr0, rax
  user64 0x40000
  mov eax, stack3_top - 100
  mov ecx, [rax + 1]
  done64
  try64 "unaligned and not canonical"
  user64 0x40000
  mov rax, LOW + 1
  mov ecx, [rax]
  done64
  try64 "unaligned and not there"
  user64 0x40000
  mov eax, 200 << 20
  mov ecx, [rax + 1]
  done64

  ; Which exception is first.
  try64 "HLT with LOCK at level 3"
  user64 0
  db 0xf0
  hlt
  done64
  try64 "MOV CR1 at level 3"
  user64 0
  mov rax, cr1
  done64
  try64 "division by zero from a page that is not there"
  xor eax, eax
  xor edx, edx
  mov ecx, 200 << 20
  div dword [rcx]
  done64
  try64 "unaligned SSE operand with CR0.TS"
  mov rax, cr0
  or al, 8
  mov cr0, rax
  mov eax, stack3_top - 100
  movaps xmm0, [rax + 1]
  done64
  clts
  try64 "unaligned SSE operand that is not there"
  mov eax, 200 << 20
  movaps xmm0, [rax + 1]
  done64
  try64 "SSE with CR0.EM"
  mov rax, cr0
  or al, 12
  mov cr0, rax
  mov eax, 200 << 20
  movaps xmm0, [rax + 1]
  done64
  mov rax, cr0
  and al, ~12
  mov cr0, rax
  try64 "LTR of a null selector at level 3"
  user64 0
  xor eax, eax
  ltr ax
  done64
  try64 "LLDT of a code segment"
  mov eax, CODE64
  lldt ax
  done64
  try64 "LAR and LSL of a 64-bit TSS and gate"
  mov eax, TSS64
  lar ebx, ax
  lsl ecx, ax
  show64 "lar", rbx
  show64 "lsl", rcx
  xor ebx, ebx
  mov eax, GATE64
  lar ebx, ax
  show64 "gate", rbx
  lsl ecx, ax
  setz al
  movzx eax, al
  show64 "lsl", rax
  done64

  ; NMIs.
  mov eax, nmi_entry
  mov [idt64 + 2 * 16], ax
  shr eax, 16
  mov [idt64 + 2 * 16 + 6], ax
  mov eax, APIC + 0xf0
  mov dword [rax], 0x1ff
  try64 "an NMI waits for the end of another"
  mov byte [more_nmis], 2
  mov eax, APIC + 0x300
  mov dword [rax], 0x40400
  nop
  done64
  try64 "an IRET in the handler lets it in"
  mov byte [more_nmis], 1
  mov byte [returns_early], 1
  mov eax, APIC + 0x300
  mov dword [rax], 0x40400
  nop
  done64

  ; The APIC's base.
  try64 "the APIC's version"
  mov eax, APIC + 0x30
  mov eax, [rax]
  movzx eax, al
  show64 "version", rax
  done64
  try64 "x2APIC mode of a disabled APIC"
  msr MSR_APIC_BASE, 0xfee00500
  done64
  try64 "reserved bits of APICBASE"
  msr MSR_APIC_BASE, 0x10000fee00900
  done64
  try64 "a disabled APIC is no longer in CPUID, and comes back"
  msr MSR_APIC_BASE, 0xfee00100
  mov eax, 1
  cpuid
  shr edx, 9
  and edx, 1
  show64 "apic", rdx
  msr MSR_APIC_BASE, 0xfee00900
  mov eax, 1
  cpuid
  shr edx, 9
  and edx, 1
  show64 "apic", rdx
  mov eax, APIC + 0xf0
  mov eax, [rax]
  show64 "svr", rax
  done64

  try64 "a data breakpoint of eight bytes"
  mov eax, stack3_top - 64
  mov dr0, rax
  mov eax, 0x90401
  mov dr7, rax
  mov byte [stack3_top - 57], 1
  done64
  try64 "one byte behind it"
  mov byte [stack3_top - 56], 1
  done64
  try64 "pushed into it"
  mov rax, rsp
  mov esp, stack3_top - 56
  push rax
  done64
  mov eax, 0x400
  mov dr7, rax
  try64 "single-step over MOV SS and REP in 64-bit code"
  mov byte [continue_debug], 9
  mov esi, stack3_top - 64
  mov edi, stack3_top - 32
  mov ecx, 2
  mov rax, ss
  pushfq
  or dword [rsp], 0x100
  popfq
  mov ss, ax
  rep movsb
  pushfq
  and dword [rsp], ~0x100
  popfq
  mov byte [continue_debug], 0
  done64
  ; What does not come back where it is let through stands last.
  try64 "CR4.PAE off in long mode"
  mov rax, cr4
  and al, ~0x20
  mov cr4, rax
  done64
  try64 "CR0.PG off in 64-bit code"
  mov rax, cr0
  btr rax, 31
  mov cr0, rax
  done64
  xor eax, eax
  out 0xf4, eax
  jmp $

jumped:
  call print64
  db " jumped", 0
  ret
ist_entry:
  show64 "rsp", rsp
  iretq

%macro guest_end64 0
section .bss align=4096
bss:
  resb 4096
stack_top:
  resb 4096
stack0_top:
  resb 4096
stack3_top:
  resb 4096
ist1_top:
pml4: resb 4096
pdpt: resb 4096
pd: resb 4 * 4096
idt64: resb 4096
idt: resb 2048
tss: resb 0x3000
tss16: resb 0x100
tss64: resb 0x100
bss_end:
%endmacro
  guest_end64
