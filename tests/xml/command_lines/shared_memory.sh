#=> <source type='memfd'/>
#=> <access mode='shared'/>
#=> <driver type='virtiofs'
#=> <source socket='/run/vfs.sock'/>
#=> <target dir='home'/>
#=! qemu:arg
qemu-system-x86_64 -m 2G -object memory-backend-memfd,id=mem,size=2G,share=on -machine q35,memory-backend=mem -chardev socket,id=fs,path=/run/vfs.sock -device vhost-user-fs-pci,chardev=fs,tag=home -display none -net none
