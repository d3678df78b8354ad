#=> <qemu:arg value='edu,dma_mask=0xffffffff'/>
#=> <qemu:arg value='nvme,drive=n0,serial=abc'/>
#=> <qemu:arg value='if=none,id=n0,file=nvme.img,format=raw'/>
#=> <qemu:arg value='-plugin'/>
#=> <qemu:arg value='./libhotblocks.so'/>
#=> <qemu:arg value='shift=auto'/>
#=! <disk
qemu-system-x86_64 -m 512 -display none -net none -device edu,dma_mask=0xffffffff -device nvme,drive=n0,serial=abc -drive if=none,id=n0,file=nvme.img,format=raw -plugin ./libhotblocks.so -icount shift=auto
