#=> <source protocol='nbd' name='export'
#=> <host name='::1' port='10810'/>
#=> name='iqn.2024-01.org.example:disk/3'
#=> <host name='a.example.org' port='6789'/>
#=> <host name='b.example.org'/>
#=> <config file='/etc/ceph/ceph.conf'/>
#=> <source protocol='https' name='pub/a.iso'
#=! qemu:arg
qemu-system-x86_64 -m 1G -drive file=nbd://[::1]:10810/export,if=virtio,format=raw -drive file=iscsi://san.example.org:3260/iqn.2024-01.org.example%3Adisk/3,if=virtio,format=raw -drive 'file=rbd:pool/image:mon_host=a.example.org\:6789\;b.example.org:conf=/etc/ceph/ceph.conf,if=virtio,format=raw' -drive file=https://example.org/pub/a.iso,media=cdrom -display none -net none
