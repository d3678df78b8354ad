"""A guest that has broken out of its QEMU: it reaches neither what another guest of the same user has, nor the daemon."""

import array
import ctypes
import json
import os
import socket
import unittest

from troupe_story import EMULATOR, Story, main, read, run


def landlock_abi():
    """0: the kernel has none, or it is not switched on."""
    return max(0, ctypes.CDLL(None).syscall(444, None, 0, 1))


class Monitor:
    """A QMP connection of one's own, which can hand over descriptors."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def close(self):
        self.lines.close()
        self.socket.close()

    def ask(self, command, fd=None, **arguments):
        """The command's return value, or its error."""
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        handed = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.socket.sendmsg([text], handed)
        while True:
            answer = json.loads(self.lines.readline())
            if "return" in answer or "error" in answer:
                return answer.get("error", answer.get("return"))

    def plug(self, node, path, readonly=False):
        answer = self.ask("blockdev-add", **{"driver": "file", "node-name": node, "filename": path, "read-only": readonly})
        return answer.get("desc", "added")


class Landlock(Story):
    def disk(self, name):
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        os.chmod(path, 0o666)
        return path

    def guest_with(self, name, image, kind="raw"):
        """A guest with that disk and a second monitor."""
        self.own = self.path(name + ".qmp")
        xml = self.nano_xml(name, devices="<disk type='file'><driver name='qemu' type='%s'/><source file='%s'/>"
                            "<target dev='vda' bus='virtio'/></disk>" % (kind, image))
        xml = xml.replace("<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ", 1)
        xml = xml.replace("</domain>", "<qemu:commandline><qemu:arg value='-qmp'/><qemu:arg value='unix:%s,server=on,wait=off'/>"
                          "</qemu:commandline></domain>" % self.own)
        self.define(xml)
        self.virsh("start", name)
        monitor = Monitor(self.own)
        self.addCleanup(monitor.close)
        return monitor

    def setUp(self):
        super().setUp()
        self.only_troupe("it has no Landlock")
        if not landlock_abi():
            self.skipTest("this kernel has no Landlock, or its lsm= leaves it out; in the lsm-lab VM it is on")
        os.chmod(self.place, 0o777)  # QEMU's second monitor is made here

    def test_a_guest_cannot_open_what_another_has(self):
        mine, others = self.disk("mine.img"), self.disk("others.img")
        monitor = self.guest_with("one", mine)
        self.guest_with("two", others)
        self.assertIn("Permission denied", monitor.plug("x", others))
        self.assertIn("Permission denied", monitor.plug("x", others, readonly=True))
        self.assertIn("Permission denied", monitor.plug("x", os.path.join(self.daemon.definitions, "one.xml")))
        self.assertEqual("added", monitor.plug("again", mine, readonly=True))

    def test_a_disk_that_is_handed_over_can_be_plugged_in_later(self):
        monitor = self.guest_with("one", self.disk("mine.img"))
        later = os.open(self.disk("later.img"), os.O_RDWR)
        monitor.ask("add-fd", fd=later, **{"fdset-id": 7})
        os.close(later)
        self.assertEqual("added", monitor.plug("later", "/dev/fdset/7"))

    def test_what_the_header_of_an_image_names_can_be_opened(self):
        base = self.disk("base.img")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", self.path("middle.qcow2")])
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.path("middle.qcow2"), "-F", "qcow2", self.path("top.qcow2")])
        monitor = self.guest_with("layered", self.path("top.qcow2"), "qcow2")
        self.assertIn(base, json.dumps(monitor.ask("query-named-block-nodes")))
        self.assertEqual("added", monitor.plug("again", base, readonly=True))

    def test_off_by_one_setting(self):
        others = self.disk("others.img")
        self.daemon.stop()
        with open(self.daemon.settings, "w") as file:
            file.write("landlock = 0\n")
        try:
            self.daemon.start()
            self.assertEqual("added", self.guest_with("one", self.disk("mine.img")).plug("x", others))
        finally:
            os.remove(self.daemon.settings)
            self.daemon.stop()
            self.daemon.start()


INTRUDER = """#!/usr/bin/python3
# An emulator that asks the daemon for something before it becomes QEMU.
import os, socket, sys
if "-S" in sys.argv:
    for name in ("libvirt-sock", "libvirt-sock-ro", "control"):
        try:
            daemon = socket.socket(socket.AF_UNIX)
            daemon.connect("%s/" + name)
            daemon.sendall(b"\\x00\\x00\\x00\\x1c" + bytes.fromhex("20008086 00000001 00000042 00000000 00000000 00000000"))
            print(name, "answers" if daemon.recv(1) else "turns away", flush=True)
        except OSError as failed:
            print(name, "turns away:", failed, flush=True)
os.execv("%s", sys.argv)
"""


@unittest.skipIf(os.getuid() != 0, "needs root: only a system instance knows its guests by their control groups")
class Doors(Story):
    def test_the_daemon_turns_away_its_own_guests(self):
        self.only_troupe("it serves whoever may open its socket")
        if "are not limited" in read(self.daemon.output):
            self.skipTest("there are no control groups here")
        emulator = self.write("intruder", INTRUDER % (self.daemon.runtime, EMULATOR))
        os.chmod(emulator, 0o755)
        self.start_nano("intruder", emulator=emulator)
        said = self.daemon.guest_log("intruder")
        self.assertEqual(3, said.count("turns away"), said)
        self.assertNotIn("answers", said)


if __name__ == "__main__":
    main()
