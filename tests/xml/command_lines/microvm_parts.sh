#=> <watchdog model='i6300esb' action='poweroff'>
#=> <panic model='isa'
#=> <genid>324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87</genid>
#=> <vmcoreinfo state='on'/>
#=> <entry name='manufacturer'>Acme</entry>
#=> <entry name='opt/org.test'>hello</entry>
#=! qemu:arg
qemu-system-x86_64 -M pc -m 512M -watchdog i6300esb -watchdog-action poweroff -device pvpanic -device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87 -device vmcoreinfo -smbios type=1,manufacturer=Acme,serial=12 -fw_cfg name=opt/org.test,string=hello -display none -net none
