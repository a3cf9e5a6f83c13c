; A kernel of your own in fifty lines: multiboot 1, 32-bit protected mode, serial console, power-off.
;
;     nasm -f bin -o hello.bin examples/hello-multiboot.asm
;     npx exitless boot --kernel hello.bin --append 'from the command line' --debug-console debug.txt

bits 32
org 0x100000

MAGIC equ 0x1BADB002
FLAGS equ 0x10000                 ; the header below says where things go

header:
        dd MAGIC, FLAGS, -(MAGIC + FLAGS)
        dd header, header, 0, 0, start

LINE_STATUS     equ 0x3FD
TRANSMITTER     equ 0x3F8
EMPTY           equ 0x20          ; in the line status: the transmitter takes a byte
DEBUG_CONSOLE   equ 0xE9
EXIT            equ 0xF4          ; ends the run with status 2n + 1

start:                            ; EBX: the multiboot information
        mov     esp, stack_top
        mov     esi, greeting
        call    print
        mov     esi, [ebx + 16]   ; its command line
        call    print
        mov     esi, newline
        call    print
        xor     eax, eax
        out     EXIT, eax

print:  lodsb
        test    al, al
        jz      .done
        mov     ah, al
        out     DEBUG_CONSOLE, al
.wait:  mov     dx, LINE_STATUS
        in      al, dx
        test    al, EMPTY
        jz      .wait
        mov     al, ah
        mov     dx, TRANSMITTER
        out     dx, al
        jmp     print
.done:  ret

greeting: db 'Hello: ', 0
newline:  db 13, 10, 0
        align 16
        times 1024 db 0
stack_top:
