#=> <qemu:env name='SDL_VIDEODRIVER' value='x11'/>
#=> <qemu:env name='PULSE_SERVER' value='unix:/run/pulse'/>
SDL_VIDEODRIVER=x11 PULSE_SERVER=unix:/run/pulse qemu-system-x86_64 -m 512 -display none -net none
