# The kind of line Incus and LXD start, with what they read from a file written out.
#=> <name>c1</name>
#=> <vcpu placement='static'>2</vcpu>
#=> <memory unit='KiB'>1048576</memory>
#=> <controller type='pci' index='1' model='pcie-root-port'>
#=> <vsock model='virtio'>
#=> <cid auto='no' address='42'/>
#=> <qemu:arg value='virtio-keyboard-pci,bus=gpu_does_not_exist'/>
/usr/bin/qemu-system-x86_64 -S -name c1 -uuid 0b1f1a3c-0d3a-4d0e-8c70-3b6e6a4c1c01 -daemonize -cpu host,hv_passthrough \
  -nographic -serial chardev:console -nodefaults -no-user-config \
  -sandbox on,obsolete=deny,elevateprivileges=allow,spawn=allow,resourcecontrol=deny \
  -machine q35,accel=kvm -m 1G -smp 2,sockets=1,cores=2,threads=1 \
  -chardev socket,id=monitor,path=/run/incus/c1/qemu.monitor,server=on,wait=off -mon chardev=monitor,mode=control \
  -chardev ringbuf,id=vserial -chardev pty,id=console -pidfile /run/incus/c1/qemu.pid -D /var/log/incus/c1/qemu.log \
  -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.4MB.fd \
  -drive if=pflash,format=raw,file=/var/lib/incus/c1/qemu.nvram \
  -device pcie-root-port,id=qemu_pcie0,bus=pcie.0,addr=1.0,multifunction=on,chassis=0,port=8 \
  -device vhost-vsock-pci,guest-cid=42,bus=qemu_pcie0,addr=00.0 \
  -device virtio-keyboard-pci,bus=gpu_does_not_exist \
  -runas nobody
