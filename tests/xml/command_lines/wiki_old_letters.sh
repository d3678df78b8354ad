#=> <target dev='hdb' bus='ide'/>
#=> <target dev='fda' bus='fdc'/>
#=> <clock offset='localtime'/>
#=> <input type='tablet' bus='usb'>
#=> port='5901'
#=> keymap='de'
#=! qemu:arg
#=! <interface
qemu-system-x86_64 -M pc -m 256 -hda a.img -hdb b.img -fda boot.img -localtime -usb -usbdevice tablet -vnc :1 -k de -net none
