#=> <qemu:arg value='virtio-blk-pci,drive=d,x-new-thing=7'/>
#=> <qemu:arg value='if=none,id=d,file=a.img,format=raw'/>
#=! <disk
qemu-system-x86_64 -m 512 -display none -net none -device virtio-blk-pci,drive=d,x-new-thing=7 -drive if=none,id=d,file=a.img,format=raw
