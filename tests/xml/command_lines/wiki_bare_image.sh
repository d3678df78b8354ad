#=> <source file='disk.qcow2'/>
#=> <target dev='hda' bus='ide'/>
#=> <memory unit='KiB'>131072</memory>
#=> <domain type='qemu'>
qemu-system-x86_64 disk.qcow2
