#=> <domain type='kvm'>
#=> <memory unit='KiB'>2097152</memory>
#=> <boot dev='cdrom'/>
#=> <source file='install.iso'/>
#=> <target dev='hdc' bus='ide'/>
#=> <target dev='hda' bus='ide'/>
#=> <graphics type='sdl'
#=! qemu:arg
qemu-system-x86_64 -m 2G -cdrom install.iso -boot order=d -drive file=disk.img,format=raw -enable-kvm
