#=> <interface type='bridge'>
#=> <source bridge='br1'/>
#=> <model type='e1000'/>
#=> <mac address='52:54:00:aa:bb:cc'/>
#=! qemu:arg
qemu-system-x86_64 -accel kvm -m 1024 -nic bridge,br=br1,model=e1000,mac=52:54:00:aa:bb:cc -nographic
