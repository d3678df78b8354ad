# A whole guest in one 64 KiB firmware image: `qemu-system-x86_64 -machine q35 -m 4 -bios nano.bin`, KVM or TCG.
#
# It says "guest: nano is up" on COM1 and sleeps. The ACPI power button powers it off. A letter typed on COM1:
#   p power off    r reboot    i ignore the power button from now on    h hang, deaf to everything    s spin
# Any other character is answered with "guest: heard X".
#
# Flat 32-bit code. The image lies at 0xf0000; its data is used from there, variables live at 0x500.
# Ports are those of QEMU's i440FX/PIIX4 and Q35/ICH9: PM1 block at 0x600 after we put it there.

        .equ    base, 0xf0000
        .equ    ignoring, 0x500         # byte: the power button does nothing
        .equ    pressed, 0x501          # byte: the power button was pressed
        .equ    idt, 0x1000
        .equ    stack, 0x7000

        .text
        .code16
reset:  cli
        cld
        lgdtl   %cs:gdt_register
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $base + flat

        .code32
flat:   movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $stack, %esp
        movw    $0, ignoring

        movl    $idt, %edi              # every interrupt goes to `unheard`...
        movl    $256, %ecx
1:      movl    $(8 << 16) + (unheard - reset), (%edi)
        movl    $base + 0x8e00, 4(%edi)
        addl    $8, %edi
        loop    1b
        movw    $serial_irq - reset, idt + 8 * 0x24     # ...but IRQ 4 and IRQ 9
        movw    $acpi_irq - reset, idt + 8 * 0x29
        lidtl   base + idt_register

        movl    $0x1ff, 0xfee000f0      # local APIC on, LINT0 takes what the old PICs deliver
        movl    $0x700, 0xfee00350

        movl    $base + set_up, %esi    # pairs of port and byte
        movl    $(set_up_end - set_up) / 3, %ecx
2:      lodsw
        movw    %ax, %dx
        lodsb
        outb    %al, %dx
        loop    2b

        movl    $0x8000f840, %ebx       # q35: ICH9 LPC 00:1f.0, PM base and ACPI enable
        movl    $0x80, %esi
        movl    $0x8000f800, %eax
        call    pci_at
        inl     %dx, %eax
        cmpw    $0x8086, %ax
        je      3f
        movl    $0x80000b40, %ebx       # pc: PIIX4 PM 00:01.3
        movl    $1, %esi
        jmp     4f
3:      movl    %ebx, %eax
        call    pci_at
        movl    $0x601, %eax
        outl    %eax, %dx
        leal    4(%ebx), %eax
        jmp     5f
4:      movl    %ebx, %eax
        call    pci_at
        movl    $0x601, %eax
        outl    %eax, %dx
        leal    0x40(%ebx), %eax
5:      call    pci_at
        movl    %esi, %eax
        outl    %eax, %dx

        movw    $0x604, %dx             # PM1 control: SCI on
        movw    $1, %ax
        outw    %ax, %dx
        movw    $0x602, %dx             # PM1 enable: power button
        movw    $0x100, %ax
        outw    %ax, %dx

        movl    $base + said_up, %esi
        call    say

idle:   cmpb    $0, pressed
        je      1f
        movb    $0, pressed
        movl    $base + said_pressed, %esi
        call    say
        cmpb    $0, ignoring
        je      power_off
1:      movw    $0x3fd, %dx             # a byte for us? 0xff: there is no COM1
        inb     %dx, %al
        cmpb    $0xff, %al
        je      2f
        testb   $1, %al
        jnz     typed
2:      sti
        hlt
        cli
        jmp     idle

typed:  movw    $0x3f8, %dx
        inb     %dx, %al
        cmpb    $'p', %al
        je      power_off
        cmpb    $'r', %al
        je      reboot
        cmpb    $'i', %al
        je      ignore
        cmpb    $'h', %al
        je      hang
        cmpb    $'s', %al
        je      spin
        movb    %al, %bl
        movl    $base + said_heard, %esi
        call    say
        movb    %bl, %al
        outb    %al, %dx
        movl    $base + said_end, %esi
        call    say
        jmp     idle

ignore: movb    $1, ignoring
        movl    $base + said_ignore, %esi
        call    say
        jmp     idle

power_off:
        movl    $base + said_off, %esi
        call    say
        movw    $0x604, %dx             # sleep type 0 (S5), sleep enable, SCI enable
        movw    $0x2001, %ax
        outw    %ax, %dx
        jmp     dead

reboot: movl    $base + said_reboot, %esi
        call    say
        movw    $0xcf9, %dx
        movb    $2, %al
        outb    %al, %dx
        movb    $6, %al
        outb    %al, %dx
        jmp     dead

spin:   movl    $base + said_spin, %esi
        call    say
1:      jmp     1b

hang:   movl    $base + said_hang, %esi
        call    say
dead:   cli
        hlt
        jmp     dead

# Selects the PCI register in eax; leaves dx at the data port.
pci_at: movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $0xcfc, %dx
        ret

# Prints the string at esi; leaves dx at the data port of COM1.
say:    movw    $0x3f8, %dx
1:      lodsb
        testb   %al, %al
        jz      2f
        outb    %al, %dx
        jmp     1b
2:      ret

# Interrupts come only at the `hlt` of idle, so their way back is to start it over: no `iret`, which a KVM that has to
# emulate our instructions may not know.
acpi_irq:
        movw    $0x600, %dx             # PM1 status; writing a 1 clears it
        inw     %dx, %ax
        outw    %ax, %dx
        testb   $1, %ah
        jz      1f
        movb    $1, pressed
1:      movb    $0x20, %al
        outb    %al, $0xa0
serial_irq:                             # idle fetches the byte
        movb    $0x20, %al
        outb    %al, $0x20
unheard:
        movl    $stack, %esp
        jmp     idle

set_up:
        .macro  port number, value
        .word   \number
        .byte   \value
        .endm
        port    0x20, 0x11              # PICs: edge, cascade, ICW4; vectors 0x20 and 0x28; only IRQ 2, 4 and 9 open
        port    0xa0, 0x11
        port    0x21, 0x20
        port    0xa1, 0x28
        port    0x21, 4
        port    0xa1, 2
        port    0x21, 1
        port    0xa1, 1
        port    0x21, 0xeb
        port    0xa1, 0xfd
        port    0x4d1, 2                # IRQ 9 is a level
        port    0x3fb, 3                # COM1: 8N1, no FIFO, interrupt on received data
        port    0x3fc, 0x0b
        port    0x3f9, 1
set_up_end:

said_up:        .asciz "guest: nano is up\r\n"
said_pressed:   .asciz "guest: power button\r\n"
said_ignore:    .asciz "guest: ignoring the power button\r\n"
said_off:       .asciz "guest: powering off\r\n"
said_reboot:    .asciz "guest: rebooting\r\n"
said_spin:      .asciz "guest: spinning\r\n"
said_hang:      .asciz "guest: hanging\r\n"
said_heard:     .asciz "guest: heard "
said_end:       .asciz "\r\n"

        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_register:
        .word   23
        .long   base + gdt
idt_register:
        .word   256 * 8 - 1
        .long   idt

        .org    0xfff0                  # the CPU starts here
        .code16
        jmp     reset
        .org    0x10000
