# The kind of line Proxmox VE shows with "qm showcmd", without its -readconfig.
#=> <name>web</name>
#=> <uuid>6f6b1c3a-2f0d-4d2b-9a5e-0c7f2c9d1e11</uuid>
#=> <vcpu placement='static'>4</vcpu>
#=> <driver name='qemu' type='raw' cache='none' io='io_uring' detect_zeroes='on'/>
#=> <source dev='/dev/pve/vm-101-disk-0'/>
#=> <target dev='sda' bus='scsi'/>
#=> <controller type='scsi' index='0' model='virtio-scsi'>
#=> <mac address='bc:24:11:0a:0b:0c'/>
#=> <target dev='tap101i0'/>
#=> <script path='/var/lib/qemu-server/pve-bridge'/>
#=> <source mode='bind' path='/var/run/qemu-server/101.qga'/>
#=> <target type='virtio' name='org.qemu.guest_agent.0'/>
#=> <graphics type='vnc'
#=> <relaxed state='on'/>
#=> <memballoon model='virtio' freePageReporting='on'>
#=> -daemonize: left out
/usr/bin/kvm -id 101 -name 'web,debug-threads=on' -no-shutdown \
  -chardev 'socket,id=qmp,path=/var/run/qemu-server/101.qmp,server=on,wait=off' -mon 'chardev=qmp,mode=control' \
  -pidfile /var/run/qemu-server/101.pid -daemonize \
  -smbios 'type=1,uuid=6f6b1c3a-2f0d-4d2b-9a5e-0c7f2c9d1e11' -uuid 6f6b1c3a-2f0d-4d2b-9a5e-0c7f2c9d1e11 \
  -smp '4,sockets=1,cores=4,maxcpus=4' -nodefaults \
  -boot 'menu=on,strict=on,reboot-timeout=1000,splash=/usr/share/qemu-server/bootsplash.jpg' \
  -vnc 'unix:/var/run/qemu-server/101.vnc,password=on' -cpu 'kvm64,enforce,hv_relaxed,+kvm_pv_eoi,+lahf_lm,+sep' -m 4096 \
  -device 'pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e' \
  -device 'piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2' -device 'usb-tablet,id=tablet,bus=uhci.0,port=1' \
  -device 'VGA,id=vga,bus=pci.0,addr=0x2' \
  -chardev 'socket,path=/var/run/qemu-server/101.qga,server=on,wait=off,id=qga0' \
  -device 'virtio-serial,id=qga0,bus=pci.0,addr=0x8' -device 'virtserialport,chardev=qga0,name=org.qemu.guest_agent.0' \
  -device 'virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3,free-page-reporting=on' \
  -device 'virtio-scsi-pci,id=scsihw0,bus=pci.0,addr=0x5' \
  -drive 'file=/dev/pve/vm-101-disk-0,if=none,id=drive-scsi0,format=raw,cache=none,aio=io_uring,detect-zeroes=on' \
  -device 'scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,bootindex=100' \
  -netdev 'type=tap,id=net0,ifname=tap101i0,script=/var/lib/qemu-server/pve-bridge,downscript=/var/lib/qemu-server/pve-bridgedown,vhost=on' \
  -device 'virtio-net-pci,mac=BC:24:11:0A:0B:0C,netdev=net0,bus=pci.0,addr=0x12,id=net0,bootindex=101' \
  -machine 'type=pc,accel=kvm'
