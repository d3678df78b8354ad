#=> <kernel>bzImage</kernel>
#=> <cmdline>console=ttyS0 root=/dev/ram0 quiet</cmdline>
#=> <on_reboot>destroy</on_reboot>
#=> <serial type='pty'>
#=! <graphics
#=! <interface
exec qemu-system-x86_64 -kernel bzImage -initrd root.cpio -append "console=ttyS0 root=/dev/ram0 quiet" -nographic -no-reboot -m 512M -nic none
