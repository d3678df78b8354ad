#=> <qemu:arg value='-nic'/>
#=> <qemu:arg value='user,hostfwd=tcp::2222-:22'/>
#=! <interface
qemu-system-x86_64 -m 1024 -display none -nic user,hostfwd=tcp::2222-:22
