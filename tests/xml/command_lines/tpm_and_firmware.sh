#=> <loader readonly='yes' secure='yes' type='pflash'>/fw/CODE.secboot.fd</loader>
#=> <nvram>/vm/VARS.fd</nvram>
#=> <tpm model='tpm-tis'>
#=> <backend type='external'>
#=! qemu:arg
qemu-system-x86_64 -machine q35,smm=on -global driver=cfi.pflash01,property=secure,value=on -m 4G -drive if=pflash,format=raw,unit=0,readonly=on,file=/fw/CODE.secboot.fd -drive if=pflash,format=raw,unit=1,file=/vm/VARS.fd -chardev socket,id=chrtpm,path=/run/swtpm.sock -tpmdev emulator,id=tpm0,chardev=chrtpm -device tpm-tis,tpmdev=tpm0 -display none -net none
