; Segment types and limits, stack width, conforming code, LAR and LSL in 32-bit protected mode. SDM 3A chapter 5.
%include "common.inc"

main:
  descriptor FREE, 0x200000, 0x0fff, 0x93, 4        ; data, 4 KiB, 32-bit
  descriptor FREE + 8, 0x200000, 0x0fff, 0x91, 4    ; read-only data
  descriptor FREE + 16, 0x200000, 0x0fff, 0x99, 4   ; execute-only code
  descriptor FREE + 24, 0x200000, 0x0fff, 0x9b, 4   ; readable code
  descriptor FREE + 32, 0x200000, 0x0fff, 0x97, 4   ; expand-down, 32-bit: valid above 0xfff
  descriptor FREE + 40, 0x200000, 0x0fff, 0x97, 0   ; expand-down, 16-bit: valid from 0x1000 to 0xffff
  descriptor FREE + 48, 0x200000, 0x0fff, 0x13, 4   ; not present
  descriptor FREE + 64, 0, 0xfffff, 0x9f, 0xc       ; conforming code, DPL 0
  descriptor FREE + 72, 0, 0xfffff, 0x9a, 0xc       ; code, not accessed
  descriptor FREE + 80, 0x200000, 0x0fff, 0x82, 0   ; an LDT

  descriptor FREE + 88, 0x310000, 0x0fff, 0xf3, 4   ; 32-bit stack of 4 KiB for level 3
  descriptor FREE + 96, 0x310000, 0xffff, 0xf3, 0   ; 16-bit stack of 64 KiB for level 3

%macro in_user 2                    ; stack segment, ESP: goes on at level 3
  push dword %1
  push dword %2
  push dword 2
  push dword CODE3
  push dword %%on
  iretd
%%on:
%endmacro
%macro load_ds 1
  mov eax, %1
  mov ds, eax
%endmacro

  try "limit, byte within"
  load_ds FREE
  mov al, [0xfff]
  done
  try "limit, byte beyond"
  load_ds FREE
  mov al, [0x1000]
  done
  try "limit, dword across"
  load_ds FREE
  mov eax, [0xffd]
  done
  try "limit, write across"
  load_ds FREE
  mov [0xffd], eax
  done
  try "limit, base and index wrap"
  load_ds FREE
  mov ebx, 0xffffffff
  mov ecx, 1
  mov al, [ebx + ecx]
  done
  try "read-only, read"
  load_ds FREE + 8
  mov eax, [0]
  done
  try "read-only, write"
  load_ds FREE + 8
  mov [0], eax
  done
  try "read-only, modify"
  load_ds FREE + 8
  lock inc dword [0]
  done
  try "execute-only into DS"
  load_ds FREE + 16
  done
  try "readable code, read"
  load_ds FREE + 24
  mov eax, [0]
  done
  try "readable code, write"
  load_ds FREE + 24
  mov [0], eax
  done
  try "write by CS"
  mov [cs:0x300000], eax
  done
  try "expand-down, below"
  load_ds FREE + 32
  mov al, [0xfff]
  done
  try "expand-down, above"
  load_ds FREE + 32
  mov al, [0x1000]
  done
  try "expand-down 16, above"
  load_ds FREE + 40
  mov al, [0x10000]
  done
  try "expand-down 16, at the end"
  load_ds FREE + 40
  mov ax, [0xfffe]
  done
  try "not present"
  load_ds FREE + 48
  done
  try "null, loaded"
  load_ds 0
  done
  try "null, used"
  load_ds 3
  mov eax, [0]
  done
  try "beyond the GDT"
  load_ds GDT_ENTRIES * 8
  done
  try "LDT that is null"
  load_ds 4
  done
  try "SS null"
  xor eax, eax
  mov ss, eax
  done
  try "SS not writable"
  mov eax, FREE + 8
  mov ss, eax
  done
  try "SS not present"
  mov eax, FREE + 48
  mov ss, eax
  done
  try "SS with another RPL"
  mov eax, DATA3
  mov ss, eax
  done
  try "stack limit, push"
  in_user FREE + 88 + 3, 2
  push eax
  leave_user
  done
  try "stack limit, pop"
  in_user FREE + 88 + 3, 0xffe
  pop eax
  leave_user
  done
  try "stack limit, pushad"
  in_user FREE + 88 + 3, 0x1f
  pushad
  leave_user
  done
  try "stack limit, call"
  in_user FREE + 88 + 3, 3
  call main
  leave_user
  done
  try "stack limit, by EBP"
  in_user FREE + 88 + 3, 0x800
  mov ebp, 0x1000
  mov eax, [ebp]
  leave_user
  done
  try "stack limit, enter"
  in_user FREE + 88 + 3, 0x20
  enter 0x100, 0
  leave_user
  done
  try "16-bit stack wraps and keeps ESP's upper half"
  in_user FREE + 96 + 3, 0x12340002
  push ax
  push ax
  mov ebx, esp
  leave_user
  done
  show "esp", ebx
  call finish_test
  try "string beyond its limit"
  load_ds FREE
  mov esi, 0xff0
  mov edi, 0x300000
  mov ecx, 100
  cld
  rep movsb
  done
  try "where it stopped"
  mov ecx, [fault_ecx]
  show "ecx", ecx
  done
  try "EIP beyond the limit"
  jmp FREE + 24:0x2000
  done
  try "conforming code from level 3"
  mov eax, .user1
  xor ebx, ebx
  jmp enter_user
.user1:
  call FREE + 64 + 3:.conforming
  leave_user
.conforming:
  mov ax, cs
  movzx eax, ax
  mov ebx, eax
  leave_user
  done
  show "cs", ebx
  call finish_test
  try "level 0 data from level 3"
  mov eax, .user2
  xor ebx, ebx
  jmp enter_user
.user2:
  mov eax, DATA
  mov ds, eax
  leave_user
  done
  try "level 0 code from level 3"
  mov eax, .user3
  xor ebx, ebx
  jmp enter_user
.user3:
  jmp CODE:0x100000
  done
  try "far jump marks code accessed"
  jmp FREE + 72:.here
.here:
  mov eax, [gdt + FREE + 72 + 4]
  and eax, 0xff00
  show "access", eax
  jmp CODE:.there
.there:
  done
  try "LDT"
  mov eax, FREE + 80
  lldt ax
  mov dword [0x200008], 0x00000fff
  mov dword [0x20000c], 0x00409330
  load_ds 12
  mov al, [0x1000]
  done
  xor eax, eax
  lldt ax

%macro query 2
  mov eax, %2
  mov ebx, 0x55
  try %1
  lar ebx, eax
  mov ecx, 0
  setz cl
  show "lar", ebx
  show "zf", ecx
  mov ebx, 0x55
  lsl ebx, eax
  mov ecx, 0
  setz cl
  show "lsl", ebx
  show "zf", ecx
  verr ax
  mov ecx, 0
  setz cl
  show "verr", ecx
  verw ax
  mov ecx, 0
  setz cl
  show "verw", ecx
  done
%endmacro
  query "data", FREE
  query "read-only", FREE + 8
  query "execute-only", FREE + 16
  query "flat", DATA
  query "TSS", TSS
  query "null", 0
  query "beyond", 0x1000
  query "LDT's descriptor", FREE + 80
  ret
  guest_end
