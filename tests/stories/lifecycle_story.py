"""A guest's life through stock virsh: every state, every reason, every event, on a real QEMU."""

import os
import re
import signal

from troupe_story import EMULATOR, Events, Story, main, wait_until


class Lifecycle(Story):
    def test_start_and_destroy(self):
        self.assertEqual(self.virsh("define", self.write("one.xml", self.nano_xml("one"))),
                         "Domain 'one' defined from %s" % self.path("one.xml"))
        self.assertEqual(self.virsh("domstate", "one", "--reason"), "shut off (unknown)")
        self.assertEqual(self.virsh("start", "one"), "Domain 'one' started")
        self.wait_serial("one", "guest: nano is up")
        self.assertEqual(self.virsh("domstate", "one", "--reason"), "running (booted)")
        pid = self.daemon.qemu("one")
        self.assertEqual(self.virsh_fails("start", "one"), "error: Domain is already active")
        self.assertEqual(self.virsh("destroy", "one"), "Domain 'one' destroyed")
        self.assertFalse(os.path.exists("/proc/%d" % pid), "destroy answers when QEMU is gone")
        self.assertEqual(self.virsh("domstate", "one", "--reason"), "shut off (destroyed)")
        self.assertIn("domain is not running", self.virsh_fails("destroy", "one"))
        self.assertEqual(self.virsh("undefine", "one"), "Domain 'one' has been undefined")
        self.assertIn("failed to get domain 'one'", self.virsh_fails("domstate", "one"))

    def test_ids_are_given_upwards_and_not_again(self):
        self.start_nano("first")
        number = int(self.virsh("domid", "first"))
        self.virsh("destroy", "first")
        self.assertEqual(self.virsh("domid", "first"), "-")
        self.virsh("start", "first")
        self.assertEqual(int(self.virsh("domid", "first")), number + 1)
        self.assertEqual(self.virsh("domname", number + 1), "first")

    def test_started_paused_it_does_not_run(self):
        self.start_nano("still", "--paused")
        self.assertEqual(self.virsh("domstate", "still", "--reason"), "paused (user)")
        self.assertEqual(self.serial("still"), "")
        self.assertEqual(self.virsh("resume", "still"), "Domain 'still' resumed")
        self.wait_serial("still", "guest: nano is up")
        self.assertEqual(self.virsh("domstate", "still", "--reason"), "running (unpaused)")

    def test_suspend_and_resume(self):
        self.start_nano("nap")
        self.assertEqual(self.virsh("suspend", "nap"), "Domain 'nap' suspended")
        self.assertEqual(self.virsh("domstate", "nap", "--reason"), "paused (user)")
        self.virsh("suspend", "nap")
        self.virsh("resume", "nap")
        self.assertEqual(self.virsh("domstate", "nap"), "running")
        self.assertIn("domain is already running", self.virsh_fails("resume", "nap"))

    def test_a_firmware_left_open_is_chosen_and_its_variables_are_kept(self):
        if not os.path.isdir("/usr/share/qemu/firmware"):
            self.skipTest("no package with UEFI firmware is installed: ovmf is Debian's")
        xml = self.write("uefi.xml", """<domain type='qemu'><name>uefi</name><memory unit='MiB'>128</memory>
          <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><loader secure='no'/></os><features><acpi/></features>
          <devices><emulator>%s</emulator></devices></domain>""" % EMULATOR)
        self.assertIn("libvirt-pflash0", self.virsh("domxml-to-native", "qemu-argv", "--xml", xml))
        self.virsh("define", xml)
        self.virsh("start", "--paused", "uefi")
        said = self.virsh("dumpxml", "uefi")
        template, variables = re.search(r"<nvram template='(.*?)'>(.*?)</nvram>", said).groups()
        self.assertEqual(variables, os.path.join(self.daemon.root, "var/lib/troupe/nvram/uefi_VARS.fd"))
        self.assertIn("type='pflash'>/", said)
        with open(template, "rb") as begin, open(variables, "rb") as now:
            self.assertEqual(begin.read(), now.read())
        self.virsh("destroy", "uefi")
        with open(variables, "r+b") as file:
            file.write(b"mine")
        self.virsh("start", "--paused", "uefi")
        with open(variables, "rb") as file:
            self.assertEqual(file.read(4), b"mine")
        self.virsh("destroy", "uefi")
        self.assertNotIn("<nvram", self.virsh("dumpxml", "--inactive", "uefi"))

    def test_the_power_button_is_pressed(self):
        self.start_nano("button")
        self.assertEqual(self.virsh("shutdown", "button"), "Domain 'button' is being shutdown")
        self.wait_serial("button", "guest: power button")
        self.daemon.wait_state("button", "shut off")
        self.assertEqual(self.virsh("domstate", "button", "--reason"), "shut off (shutdown)")
        self.assertIn("domain is not running", self.virsh_fails("shutdown", "button"))

    def test_reset_starts_the_guest_over_in_the_same_qemu(self):
        self.start_nano("again")
        pid = self.daemon.qemu("again")
        self.assertEqual(self.virsh("reset", "again"), "Domain 'again' was reset")
        self.wait_serial("again", "guest: nano is up", times=2)
        self.assertEqual(self.daemon.qemu("again"), pid)

    def test_reboot_is_a_shutdown_that_comes_back(self):
        self.start_nano("reborn")
        pid = self.daemon.qemu("reborn")
        self.assertEqual(self.virsh("reboot", "reborn"), "Domain 'reborn' is being rebooted")
        self.wait_serial("reborn", "guest: power button")
        self.wait_serial("reborn", "guest: nano is up", times=2)
        self.daemon.wait_state("reborn", "running")
        self.assertEqual(self.daemon.qemu("reborn"), pid)

    def test_a_guest_without_definition_ends_with_its_qemu(self):
        xml = self.write("passing.xml", self.nano_xml("passing"))
        self.assertEqual(self.virsh("create", xml), "Domain 'passing' created from %s" % xml)
        self.assertRegex(self.virsh("dominfo", "passing"), r"Persistent: +no")
        self.virsh("destroy", "passing")
        self.assertIn("failed to get domain 'passing'", self.virsh_fails("domstate", "passing"))
        self.virsh("create", xml, "--paused")
        self.assertEqual(self.virsh("domstate", "passing"), "paused")

    def test_a_definition_may_come_and_go_while_the_guest_runs(self):
        self.start_nano("both")
        self.virsh("undefine", "both")
        self.assertRegex(self.virsh("dominfo", "both"), r"Persistent: +no")
        self.define(self.virsh("dumpxml", "both"))
        self.assertRegex(self.virsh("dominfo", "both"), r"Persistent: +yes")
        self.assertEqual(self.virsh("domstate", "both"), "running")

    def test_the_death_of_a_qemu_is_noticed(self):
        self.start_nano("victim")
        self.start_nano("witness")
        os.kill(self.daemon.qemu("victim"), signal.SIGKILL)
        self.daemon.wait_state("victim", "shut off")
        self.assertEqual(self.virsh("domstate", "victim", "--reason"), "shut off (crashed)")
        self.assertEqual(self.virsh("domstate", "witness"), "running")
        self.virsh("start", "victim")

    def test_a_stopped_qemu_holds_nobody_up(self):
        """SIGSTOP is the simplest wedged QEMU: others are served, and destroy still ends it."""
        self.start_nano("wedged")
        self.start_nano("healthy")
        os.kill(self.daemon.qemu("wedged"), signal.SIGSTOP)
        self.assertEqual(self.virsh("domstate", "wedged"), "running")
        self.virsh("suspend", "healthy")
        self.assertEqual(self.virsh("domstate", "healthy"), "paused")
        self.virsh("destroy", "wedged")
        self.assertEqual(self.virsh("domstate", "wedged"), "shut off")

    def test_every_event_of_a_life_in_order(self):
        with Events(self) as events:
            self.define(self.nano_xml("told"))
            self.virsh("start", "told")
            self.wait_serial("told", "guest: nano is up")
            self.virsh("suspend", "told")
            self.virsh("resume", "told")
            self.virsh("reset", "told")
            self.wait_serial("told", "guest: nano is up", times=2)
            self.virsh("shutdown", "told")
            self.daemon.wait_state("told", "shut off")
            self.virsh("start", "told", "--paused")
            self.virsh("destroy", "told")
            self.virsh("undefine", "told")
            events.wait(
                "event 'lifecycle' for domain 'told': Defined Added",
                "event 'lifecycle' for domain 'told': Started Booted",
                "event 'lifecycle' for domain 'told': Suspended Paused",
                "event 'lifecycle' for domain 'told': Resumed Unpaused",
                "event 'reboot' for domain 'told'",
                "event 'lifecycle' for domain 'told': Shutdown Finished after guest request",
                "event 'lifecycle' for domain 'told': Stopped Shutdown",
                "event 'lifecycle' for domain 'told': Started Booted",
                "event 'lifecycle' for domain 'told': Suspended Paused",
                "event 'lifecycle' for domain 'told': Stopped Destroyed",
                "event 'lifecycle' for domain 'told': Undefined Removed")

    def test_a_guest_that_powers_off_by_itself(self):
        with Events(self, "--event", "lifecycle") as events:
            self.start_nano("own")
            self.virsh("qemu-monitor-command", "own", "--hmp", "system_powerdown")
            self.daemon.wait_state("own", "shut off")
            events.wait("Started Booted", "Shutdown Finished after guest request", "Stopped Shutdown")
        wait_until("no QEMU is left", lambda: not self.daemon.qemus("own"))


if __name__ == "__main__":
    main()
