#=> <maxMemory slots='4' unit='KiB'>8388608</maxMemory>
#=> <memory unit='KiB'>1572864</memory>
#=> <vcpu placement='static' current='2'>8</vcpu>
#=! <topology
qemu-system-x86_64 -m size=1.5G,slots=4,maxmem=8G -smp 2,maxcpus=8 -display none -net none
