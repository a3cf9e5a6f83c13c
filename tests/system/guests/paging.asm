; 32-bit and PAE paging: rights, large pages, reserved bits, accessed and dirty, PDPTEs as registers. SDM 3A chapter 4.
%include "common.inc"

PRESENT equ 1
WRITE equ 2
USER equ 4
LARGE equ 0x80
DIRECTORY equ 0x400000              ; tables from 4 MiB on
TABLE equ 0x401000
POINTERS equ 0x402000               ; PAE: pointers, then four directories, then a table
DIRECTORIES equ 0x403000
PAE_TABLE equ 0x407000
VIRTUAL equ 0x10000000              ; where pages are tried; the first 8 MiB are mapped to themselves

; PAGE's entry in the table: low and high word
%macro page 3
  mov dword [TABLE + %1 * 4], %2
  mov dword [PAE_TABLE + %1 * 8], %2
  mov dword [PAE_TABLE + %1 * 8 + 4], %3
  mov eax, cr3
  mov cr3, eax
%endmacro
%macro at_user 0
  mov eax, %%on
  xor ebx, ebx
  jmp enter_user
%%on:
%endmacro

main:
  cld
  mov edi, DIRECTORY
  mov ecx, 0x8000 / 4
  xor eax, eax
  rep stosd
; 32-bit paging: two 4-MiB pages for ourselves, a table at VIRTUAL
  mov dword [DIRECTORY], PRESENT | WRITE | USER | LARGE
  mov dword [DIRECTORY + 4], 0x400000 | PRESENT | WRITE | USER | LARGE
  mov dword [DIRECTORY + (VIRTUAL >> 22) * 4], TABLE | PRESENT | WRITE | USER
  mov eax, cr4
  or eax, 0x10
  mov cr4, eax
  mov eax, DIRECTORY
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80010000                ; PG, WP
  mov cr0, eax
  call common_tests
  try "32-bit: PSE-36 and its reserved bit"
  mov dword [DIRECTORY + 0x20], 0x200000 | PRESENT | WRITE | LARGE
  mov eax, [0x2000000]
  done
  try "32-bit: 4-MiB page, user from level 3"
  mov dword [DIRECTORY + 0x24], PRESENT | WRITE | LARGE
  at_user
  mov eax, [0x2400000]
  leave_user
  done
  try "32-bit: write to a 4-MiB page makes it dirty"
  mov [0x2400ff0], eax
  mov eax, [DIRECTORY + 0x24]
  show "entry", eax
  done
; Paging goes off, and on again in the other mode.
  mov eax, cr0
  and eax, 0x7fffffff
  mov cr0, eax

; PAE: four directories, the first with two 2-MiB pages each for ourselves
  mov edi, DIRECTORIES
  mov ecx, 4
.pointers:
  mov eax, edi
  or eax, PRESENT
  mov edx, edi
  sub edx, DIRECTORIES
  shr edx, 9
  mov [POINTERS + edx], eax
  add edi, 0x1000
  loop .pointers
  mov dword [DIRECTORIES], PRESENT | WRITE | USER | LARGE
  mov dword [DIRECTORIES + 8], 0x200000 | PRESENT | WRITE | USER | LARGE
  mov dword [DIRECTORIES + 16], 0x400000 | PRESENT | WRITE | USER | LARGE
  mov dword [DIRECTORIES + (VIRTUAL >> 21) * 8], PAE_TABLE | PRESENT | WRITE | USER
  mov eax, POINTERS
  mov cr3, eax
  mov eax, cr4
  or eax, 0x20
  mov cr4, eax
  mov eax, cr0
  or eax, 0x80010000
  mov cr0, eax
  call common_tests
  try "PAE: NX without NXE is reserved"
  page 20, 0x200000 | PRESENT | WRITE | USER, 0x80000000
  mov eax, [VIRTUAL + 0x14000]
  done
  try "PAE: NX with NXE"
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x800
  wrmsr
  mov byte [0x200000], 0xc3
  page 20, 0x200000 | PRESENT | WRITE | USER, 0x80000000
  mov eax, [VIRTUAL + 0x14000]
  mov eax, VIRTUAL + 0x14000
  call eax
  done
  try "PAE: a reserved bit above NX's"
  page 21, 0x200000 | PRESENT | WRITE | USER, 0x40000000
  mov eax, [VIRTUAL + 0x15000]
  done
  try "PAE: 2-MiB page with reserved bits"
  mov dword [DIRECTORIES + 24], 0x602000 | PRESENT | WRITE | LARGE
  mov eax, [0x600000]
  done
  try "PAE: pointers are registers"
  mov dword [POINTERS + 24], 0
  mov eax, [0xc0000000]
  done
  try "PAE: pointers are loaded with CR3"
  mov eax, cr3
  mov cr3, eax
  mov eax, [0xc0000000]
  done
  try "PAE: a pointer with reserved bits"
  mov dword [POINTERS + 24], PRESENT | WRITE
  mov eax, cr3
  mov cr3, eax
  done
  mov dword [POINTERS + 24], 0
  ret

common_tests:
  try "not present"
  mov eax, [VIRTUAL]
  done
  try "not present, write"
  mov [VIRTUAL + 0x123], eax
  done
  try "not present from level 3"
  at_user
  mov eax, [VIRTUAL]
  leave_user
  done
  page 1, 0x200000 | PRESENT | USER, 0
  try "read-only, read"
  mov eax, [VIRTUAL + 0x1000]
  done
  try "accessed, not dirty"
  mov eax, [TABLE + 4]
  or eax, [PAE_TABLE + 8]
  and eax, 0xfff
  show "entry", eax
  done
  try "read-only, write under WP"
  mov [VIRTUAL + 0x1000], eax
  done
  try "read-only, write without WP"
  mov eax, cr0
  and eax, ~0x10000
  mov cr0, eax
  mov [VIRTUAL + 0x1000], eax
  done
  mov eax, cr0
  or eax, 0x10000
  mov cr0, eax
  try "read-only, write from level 3"
  at_user
  mov [VIRTUAL + 0x1000], eax
  leave_user
  done
  page 2, 0x200000 | PRESENT | WRITE, 0
  try "supervisor page from level 3"
  at_user
  mov eax, [VIRTUAL + 0x2000]
  leave_user
  done
  try "written: dirty"
  mov [VIRTUAL + 0x2000], eax
  mov eax, [TABLE + 8]
  and eax, 0x60
  mov ebx, [PAE_TABLE + 16]
  and ebx, 0x60
  or eax, ebx
  show "entry", eax
  done
  page 3, 0x201000 | PRESENT | WRITE | USER, 0
  page 4, 0, 0
  try "across two pages, the second missing"
  mov dword [0x201ffc], 0x11111111
  mov dword [VIRTUAL + 0x3ffe], 0x22222222
  done
  try "nothing of it was written"
  mov eax, [0x201ffc]
  show "word", eax
  done
  try "INVLPG forgets"
  page 5, 0x200000 | PRESENT | WRITE, 0
  mov eax, [VIRTUAL + 0x5000]
  mov dword [TABLE + 20], 0
  mov dword [PAE_TABLE + 40], 0
  invlpg [VIRTUAL + 0x5000]
  mov eax, [VIRTUAL + 0x5000]
  done
  ret
  guest_end
