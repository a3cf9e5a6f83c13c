; Instructions and encodings that 64-bit mode does not have, over their inputs: hashes of results and defined flags. An AMD EPYC gives the same ones
; in 32-bit user mode, and so does QEMU.
%include "common.inc"

; Hashes over all that an instruction of legacy modes does: AL and eight values of AH, all of CF and AF, the other status flags set and clear.
; sweep label, mask of the flags that are defined, instruction (on EAX and EDX): the label's routine returns the hash in EAX.
%macro sweep 3+
%1:
  push ebx
  push esi
  push edi
  mov edi, 0x811c9dc5
  xor esi, esi
%%next:
  mov eax, esi
  shr eax, 11
  mov ebx, eax
  and eax, 1
  and ebx, 2
  shl ebx, 3
  or eax, ebx
  test esi, 0x2000
  jz %%clear
  or eax, 0x8c4
%%clear:
  or eax, 2
  push eax
  mov eax, esi
  shr eax, 8
  and eax, 7
  mov ah, [eax + high_bytes]
  mov ebx, esi
  mov al, bl
  movzx eax, ax
  imul edx, eax, 0x9e3779b1
  popfd
  %3
  pushfd
  pop ebx
  and ebx, %2
  xor edi, eax
  imul edi, edi, 16777619
  xor edi, ebx
  imul edi, edi, 16777619
  inc esi
  cmp esi, 0x4000
  jb %%next
  mov eax, edi
  pop edi
  pop esi
  pop ebx
  ret
%endmacro

%macro all_registers32 0
  pushad
  xor [esp + 28], edx
  popad
%endmacro
%macro all_registers16 0
  pushaw
  xor [esp + 14], dx
  popaw
%endmacro
%macro lea_base_index 0
  push esi
  mov ebx, edx
  a16 lea eax, [bx + si + 5]
  pop esi
%endmacro
%macro lea_frame 0
  push ebp
  mov ebp, eax
  a16 lea eax, [bp + di - 0x1234]
  pop ebp
%endmacro
%macro lea_word 0
  mov ebx, edx
  a16 lea ax, [bx]
%endmacro

%macro instruction 4+               ; label, name, mask, instruction
  try %2
  call %1
  mov ebx, eax
  show "hash", ebx
  done
  jmp %%over
  sweep %1, %3, %4
%%over:
%endmacro

main:
  instruction daa_, "DAA", 0xd5, daa
  instruction das_, "DAS", 0xd5, das
  instruction aaa_, "AAA", 0x11, aaa
  instruction aas_, "AAS", 0x11, aas
  instruction aam10, "AAM", 0xc4, aam
  instruction aam7, "AAM 7", 0xc4, aam 7
  instruction aam255, "AAM 255", 0xc4, aam 255
  instruction aad10, "AAD", 0xc4, aad
  instruction aad16, "AAD 16", 0xc4, aad 16
  instruction aad255, "AAD 255", 0xc4, aad 255
  instruction salc_, "SALC", 0x8d5, db 0xd6
  instruction arpl_, "ARPL", 0x8d5, arpl ax, dx
  instruction inc32, "INC, one byte", 0x8d5, db 0x40
  instruction dec32, "DEC, one byte", 0x8d5, db 0x48
  instruction inc16, "INC of 16 bits", 0x8d5, db 0x66, 0x40
  instruction dec16, "DEC of 16 bits", 0x8d5, db 0x66, 0x48
  instruction adc82, "ADC by 82", 0x8d5, db 0x82, 0xd0, 0x93
  instruction sbb82, "SBB by 82", 0x8d5, db 0x82, 0xda, 0x93
  instruction cmp82, "CMP by 82", 0x8d5, db 0x82, 0xf8, 0x93
  instruction pusha32, "PUSHA and POPA", 0x8d5, all_registers32
  instruction pusha16, "PUSHA and POPA of 16 bits", 0x8d5, all_registers16
  instruction lea_bx_si, "LEA [BX + SI + 5]", 0x8d5, lea_base_index
  instruction lea_bp_di, "LEA [BP + DI - 0x1234]", 0x8d5, lea_frame
  instruction lea_bx, "LEA [BX] of 16 bits", 0x8d5, lea_word
  ret
high_bytes: db 0, 1, 9, 0x55, 0x7f, 0x80, 0xfe, 0xff
  guest_end
