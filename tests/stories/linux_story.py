"""A stock Linux boots to its user space, and answers the power button."""

import os
import shutil

from troupe_story import EMULATOR, GUEST, Story, accel, main

# A translated guest whose timer interrupts come late, on a busy machine, believes that it has none and panics.
XML = """<domain type='%s'>
  <name>linux</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>%s</kernel>
    <initrd>%s</initrd>
    <cmdline>console=ttyS0 quiet no_timer_check</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>%s</emulator>
    <serial type='file'><source path='%s'/></serial>
  </devices>
</domain>
"""


class Linux(Story):
    def test_it_boots_to_user_space_and_answers_the_power_button(self):
        for file in ("vmlinuz", "initrd"):  # QEMU may run as a user who cannot reach where they were made
            shutil.copy(os.path.join(GUEST, file), self.place)
        kind = {"kvm": "kvm", "tcg": "qemu"}[accel("linux")]
        self.define(XML % (kind, self.path("vmlinuz"), self.path("initrd"), EMULATOR, self.path("linux.serial")))
        self.virsh("start", "linux")
        self.wait_serial("linux", "guest: linux is up")
        self.virsh("shutdown", "linux")
        self.wait_serial("linux", "guest: power button")
        self.wait_serial("linux", "guest: powering off")
        self.daemon.wait_state("linux", "shut off")
        self.assertEqual(self.virsh("domstate", "linux", "--reason"), "shut off (shutdown)")


if __name__ == "__main__":
    main()
