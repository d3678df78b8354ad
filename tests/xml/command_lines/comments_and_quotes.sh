#=> <name>a b</name>
#=> <source file='/tmp/one&quot;two,three.img'/>
#=! qemu:arg
#=! comments
# first words
qemu-system-x86_64 -name 'a b' \
  -m 512 # memory
  -display none -net none -drive "file=/tmp/one\"two,,three.img",format=raw,if=virtio
