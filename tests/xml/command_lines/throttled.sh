#=> <total_bytes_sec>1048576</total_bytes_sec>
#=> <read_iops_sec>100</read_iops_sec>
#=> error_policy='stop'
#=> <serial>disk1</serial>
#=> copy_on_read='on'
#=! qemu:arg
qemu-system-x86_64 -m 512 -display none -net none -drive file=a.img,format=raw,if=virtio,bps=1048576,iops_rd=100,werror=stop,rerror=report,serial=disk1,copy-on-read=on
