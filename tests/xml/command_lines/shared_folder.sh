#=> <filesystem type='mount' accessmode='mapped'>
#=> <source dir='/srv/share'/>
#=> <target dir='share'/>
#=! qemu:arg
qemu-system-x86_64 -m 1G -virtfs local,path=/srv/share,mount_tag=share,security_model=mapped-xattr -display none -net none
