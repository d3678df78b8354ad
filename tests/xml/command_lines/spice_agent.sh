#=> <graphics type='spice' port='5901' autoport='no' listen='0.0.0.0'>
#=> <image compression='off'/>
#=> <streaming mode='filter'/>
#=> <channel type='spicevmc'>
#=> <target type='virtio' name='com.redhat.spice.0'/>
#=> <model type='qxl'
#=! qemu:arg
qemu-system-x86_64 -m 2G -vga qxl -spice port=5901,disable-ticketing,image-compression=off,streaming-video=filter -device virtio-serial -chardev spicevmc,id=vdagent,name=vdagent -device virtserialport,chardev=vdagent,name=com.redhat.spice.0 -net none
