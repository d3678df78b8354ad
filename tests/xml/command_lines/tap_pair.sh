#=> <interface type='ethernet'>
#=> <target dev='tap0'/>
#=> <driver name='vhost'/>
#=! qemu:arg
qemu-system-x86_64 -m 1024 -netdev tap,id=n0,ifname=tap0,script=no,downscript=no,vhost=on -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01 -display none
