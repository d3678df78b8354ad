#=> <driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap'/>
#=> <source file='/img/a.qcow2'/>
#=! qemu:arg
qemu-system-x86_64 -m 1G -blockdev driver=qcow2,node-name=d0,file.driver=file,file.filename=/img/a.qcow2,cache.direct=on,file.aio=native,discard=unmap -device virtio-blk-pci,drive=d0,bootindex=0 -display none -net none
