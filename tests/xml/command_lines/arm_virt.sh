#=> <type arch='aarch64' machine='virt'>hvm</type>
#=> <model fallback='forbid'>cortex-a57</model>
#=> <target dev='vda' bus='virtio'/>
#=> QEMU_EFI.fd
qemu-system-aarch64 -M virt -cpu cortex-a57 -m 1G -bios QEMU_EFI.fd -drive if=virtio,file=a.qcow2,format=qcow2 -nic user,model=virtio -nographic
