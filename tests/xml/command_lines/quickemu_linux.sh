#!/usr/bin/env bash
# The kind of line quickemu writes for a Linux desktop.
#=> <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
#=> <nvram>mint/OVMF_VARS.fd</nvram>
#=> <cpu mode='host-passthrough'
#=> <topology sockets='1' dies='1' cores='2' threads='2'/>
#=> <smm state='on'/>
#=> <model type='virtio'
#=> <acceleration accel3d='yes'/>
#=> <source file='mint/disk.qcow2'/>
#=> <target dev='vda' bus='virtio'/>
#=> <backend model='random'>/dev/urandom</backend>
#=> <qemu:arg value='virtio-net,netdev=nic'/>
#=> hostfwd=tcp::22220-:22
#=> <graphics type='spice' port='5930'
#=> <input type='tablet' bus='usb'>
#=> <controller type='usb' index='0' model='qemu-xhci'>
/usr/bin/qemu-system-x86_64 \
  -name mint,process=mint -machine q35,smm=on,vmport=off -enable-kvm \
  -global kvm-pit.lost_tick_policy=discard -global driver=cfi.pflash01,property=secure,value=on \
  -cpu host,-pdpe1gb -smp cores=2,threads=2,sockets=1 -m 4G -device virtio-balloon \
  -rtc base=utc,clock=host -pidfile mint/mint.pid \
  -device virtio-vga-gl,xres=1280,yres=800 -vga none -display sdl,gl=on \
  -device virtio-rng-pci,rng=rng0 -object rng-random,id=rng0,filename=/dev/urandom \
  -device qemu-xhci,id=spicepass -chardev spicevmc,id=usbredirchardev1,name=usbredir \
  -device usb-redir,chardev=usbredirchardev1,id=usbredirdev1 \
  -device usb-tablet,bus=spicepass.0 \
  -spice port=5930,disable-ticketing=on,addr=127.0.0.1 \
  -device virtio-net,netdev=nic -netdev user,hostname=mint,hostfwd=tcp::22220-:22,id=nic \
  -drive if=pflash,format=raw,unit=0,file=/usr/share/OVMF/OVMF_CODE_4M.fd,readonly=on \
  -drive if=pflash,format=raw,unit=1,file=mint/OVMF_VARS.fd \
  -drive media=cdrom,index=0,file=mint/mint.iso \
  -device virtio-blk-pci,drive=SystemDisk \
  -drive id=SystemDisk,if=none,format=qcow2,file=mint/disk.qcow2 \
  -monitor unix:mint/monitor.sock,server,nowait -serial unix:mint/serial.sock,server,nowait
