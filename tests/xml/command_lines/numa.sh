#=> <cell id='0' cpus='0-1' memory='1048576' unit='KiB'>
#=> <cell id='1' cpus='2-3' memory='1048576' unit='KiB'
#=> <sibling id='1' value='20'/>
#=! qemu:arg
qemu-system-x86_64 -m 2G -smp 4 -object memory-backend-ram,id=m0,size=1G -object memory-backend-ram,id=m1,size=1G -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1 -numa dist,src=0,dst=1,val=20 -display none -net none
