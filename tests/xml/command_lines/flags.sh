#=> <model fallback='forbid'>Haswell-noTSX</model>
#=> <feature policy='require' name='vmx'/>
#=> <feature policy='disable' name='hle'/>
#=> <feature policy='require' name='pcid'/>
#=> <cache level='3' mode='emulate'/>
#=> <hidden state='on'/>
#=> <spinlocks state='on' retries='8191'/>
#=> <vendor_id state='on' value='troupe'/>
#=> <qemu:arg value='Haswell-noTSX-x86_64-cpu.level=30'/>
#=! name='level'
qemu-system-x86_64 -enable-kvm -cpu Haswell-noTSX,+vmx,-hle,pcid=on,l3-cache=on,kvm=off,hv_relaxed,hv_spinlocks=0x1fff,hv-vendor-id=troupe,level=30 -smp 4,cores=2,threads=2 -m 1G -display none -net none
