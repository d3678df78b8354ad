"""What a guest's QEMU may do and what not, as the kernel tells it."""

import errno
import os
import subprocess
import unittest

from troupe_story import CLEAN, Story, main, read, wait_until


def group_of(pid):
    """Where the control group that limits the device nodes of a process is, and how: 'v1' or 'v2'. None: nowhere."""
    mounts = [line.split() for line in read("/proc/self/mountinfo").splitlines()]
    paths = dict((line.split(":", 2)[1], line.split(":", 2)[2]) for line in read("/proc/%s/cgroup" % pid).splitlines())
    for how, controller in (("v1", "devices"), ("v2", "")):
        for words in mounts:
            kind, _, options = words[words.index("-") + 1:]
            if controller in paths and (kind == "cgroup2" if how == "v2" else
                                        kind == "cgroup" and controller in options.split(",")):
                return os.path.join(words[4], os.path.relpath(paths[controller], words[3]).removeprefix("./")), how
    return None


def opens_in(group, path, flags=os.O_RDWR):
    """What a process in `group`, root with every capability, gets when it opens `path`: '', or the error's name."""
    text = ("import os\n"
            "open(%r, 'w').write('0')\n"
            "try:\n"
            "    os.open(%r, %d)\n"
            "except OSError as failed:\n"
            "    print(failed.errno)\n" % (os.path.join(group, "cgroup.procs"), path, flags | os.O_NONBLOCK))
    done = subprocess.run(["/usr/bin/python3", "-c", text], env=CLEAN, stdout=subprocess.PIPE, text=True, check=True)
    return errno.errorcode[int(done.stdout)] if done.stdout else ""


@unittest.skipUnless(os.getuid() == 0, "only root can confine")
class DeviceNodes(Story):
    """A guest opens the device nodes it needs and no others, whatever their owner and mode."""

    def setUp(self):
        self.only_troupe("it has groups of machined")
        if "device nodes are not limited" in read(self.daemon.output):
            self.skipTest("this machine has no control groups for devices")
        self.other = self.path("another")  # a node whose number is nobody's: the memory of the machine
        if not os.path.exists(self.other):
            os.mknod(self.other, 0o20666, os.makedev(1, 1))

    def start(self, name):
        self.start_nano(name)
        group, _ = group_of(self.daemon.qemu(name))
        self.assertIn("troupe", group)
        return group

    def destroyed(self, name, group):
        self.virsh("destroy", name)
        self.assertFalse(os.path.exists(group), "the group goes with its guest")
        self.assertFalse(os.path.exists(os.path.dirname(group)), "and its family with the last guest")

    def test_what_is_not_its_own_is_refused_by_the_kernel(self):
        group = self.start("cell")
        for path in ("/dev/null", "/dev/zero", "/dev/urandom"):
            self.assertEqual(opens_in(group, path), "", path)
        self.assertEqual(opens_in(group, self.other, os.O_RDONLY), "EPERM")
        self.destroyed("cell", group)

    def test_a_daemon_that_was_killed_leaves_the_group_to_the_next(self):
        group = self.start("cell")
        self.daemon.kill()
        self.daemon.start()
        self.daemon.wait_state("cell", "running")
        self.assertEqual(group_of(self.daemon.qemu("cell"))[0], group)
        self.assertEqual(opens_in(group, "/dev/null"), "")
        self.assertEqual(opens_in(group, self.other, os.O_RDONLY), "EPERM")
        self.destroyed("cell", group)

    def test_a_guest_that_died_while_nobody_looked_leaves_no_group(self):
        group = self.start("cell")
        self.daemon.kill()
        os.kill(self.daemon.qemu("cell"), 9)
        self.daemon.start()
        self.daemon.wait_state("cell", "shut off")
        wait_until("the group is gone", lambda: not os.path.exists(group))

    def test_a_start_that_fails_leaves_no_group(self):
        group = self.start("cell")
        self.destroyed("cell", group)
        self.define(self.nano_xml("cell", extra="<uuid>%s</uuid>" % self.virsh("domuuid", "cell")).replace(">8</memory>", ">800000000</memory>"))  # QEMU ends by itself
        self.virsh_fails("start", "cell")
        wait_until("the group is gone", lambda: not os.path.exists(group))


if __name__ == "__main__":
    main()
