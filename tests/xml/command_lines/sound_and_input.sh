#=> <audio id='1' type='pulseaudio' serverName='/run/user/1000/pulse/native'/>
#=> <sound model='ich9'>
#=> <codec type='micro'/>
#=> <input type='keyboard' bus='usb'>
#=> <input type='evdev'>
#=> grab='all'
#=! qemu:arg
qemu-system-x86_64 -m 1G -audiodev pa,id=snd0,server=/run/user/1000/pulse/native -device ich9-intel-hda -device hda-micro,audiodev=snd0 -device qemu-xhci -device usb-kbd -device usb-mouse -object input-linux,id=kbd,evdev=/dev/input/by-id/kbd,grab_all=on,repeat=on -display sdl -net none
