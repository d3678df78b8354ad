#=> <serial type='stdio'>
#=> <interface type='user'>
#=> <model type='virtio'/>
#=> <target dev='vda' bus='virtio'/>
#=> <domain type='kvm'>
#=! qemu:arg
qemu-system-x86_64 -machine q35,accel=kvm:tcg -m 1024 -serial mon:stdio -display none -nic user,model=virtio-net-pci -drive file=cloud.img,if=virtio
