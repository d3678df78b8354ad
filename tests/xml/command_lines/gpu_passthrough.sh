#=> <hostdev mode='subsystem' type='pci' managed='yes'>
#=> <address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>
#=> <rom file='/roms/card.rom'/>
#=> <ioapic driver='kvm'/>
#=> <vendor id='0x046d'/>
#=> <product id='0xc52b'/>
#=! qemu:arg
#=! <video>
qemu-system-x86_64 -machine q35,accel=kvm,kernel_irqchip=on -cpu host -m 8G -nodefaults -device pcie-root-port,id=rp1,chassis=1,addr=0x1c -device vfio-pci,host=0000:01:00.0,bus=rp1,multifunction=on,addr=0x0,romfile=/roms/card.rom -device vfio-pci,host=01:00.1,bus=rp1,addr=0x0.0x1 -usb -device usb-host,vendorid=0x046d,productid=0xc52b -nographic -vga none
