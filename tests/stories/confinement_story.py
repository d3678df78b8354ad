"""What a guest's QEMU may do and what not, as the kernel tells it."""

import errno
import os
import pwd
import re
import shutil
import subprocess
import time
import unittest

from troupe_story import CLEAN, GUEST, CommandFailed, Peer, Story, group_of, main, read, run, wait_until


def all_about(path):
    """Everything about a file that confinement may change."""
    found = os.stat(path)
    return (found.st_uid, found.st_gid, oct(found.st_mode), found.st_ino,
            {name: os.getxattr(path, name) for name in os.listxattr(path)})


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

    def loop_device(self, name):
        """A block device of a file; it goes with the test."""
        with open(self.path(name), "wb") as file:
            file.truncate(1 << 20)
        try:
            node = run(["losetup", "--find", "--show", self.path(name)]).strip()
        except (CommandFailed, FileNotFoundError) as failed:
            self.skipTest("this machine has no loop devices: %s" % failed)
        self.addCleanup(run, ["losetup", "--detach", node])
        return node

    def test_block_disks_are_opened_as_the_definition_says(self):
        own, looked_at, elses = (self.loop_device(name) for name in ("own", "looked-at", "elses"))
        before = {node: all_about(node) for node in (own, looked_at, elses)}
        disk = ("<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='%s'/>"
                "<target dev='%s' bus='virtio'/>%s</disk>")
        self.start_nano("cell", devices=disk % (own, "vda", "") + disk % (looked_at, "vdb", "<readonly/>"))
        group, _ = group_of(self.daemon.qemu("cell"))
        self.assertEqual(opens_in(group, own), "")
        self.assertEqual(opens_in(group, looked_at, os.O_RDONLY), "")
        self.assertEqual(opens_in(group, looked_at), "EPERM")
        self.assertEqual(opens_in(group, elses, os.O_RDONLY), "EPERM")
        self.destroyed("cell", group)
        self.assertEqual({node: all_about(node) for node in before}, before)

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


@unittest.skipUnless(os.getuid() == 0, "only root can confine")
class DeviceNodesByProgram(unittest.TestCase):
    """The same where the kernel has no `devices` controller: by a BPF program."""

    def test_the_same_holds_without_the_controller(self):
        mounts = [line.split() for line in read("/proc/self/mountinfo").splitlines()]
        place = [words[4] for words in mounts if words[words.index("-") + 1] == "cgroup"
                 and "devices" in words[-1].split(",")]
        if not place or not any(words[words.index("-") + 1] == "cgroup2" for words in mounts):
            self.skipTest("this machine has only one way to limit device nodes, which DeviceNodes takes")
        done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-ec",
                               "umount %s; exec /usr/bin/python3 -B %s DeviceNodes" % (place[0], os.path.abspath(__file__))],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("skipped", done.stdout)


def status_of(pid):
    return dict(line.split(":\t", 1) for line in read("/proc/%s/status" % pid).splitlines() if ":\t" in line)


NO_CAPABILITIES = {name: "0000000000000000" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


class AnotherUser(Story):
    """A daemon whose guests run as a user who owns nothing else."""

    settings = 'user = "+64055"\ngroup = "+64056"\nmax_files = 4321\n'

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not cls.daemon.is_peer:
            cls.configure(cls.settings)

    @classmethod
    def configure(cls, text):
        """The daemon starts again with these settings."""
        with open(cls.daemon.settings, "w") as file:
            file.write(text)
        cls.daemon.stop()
        cls.daemon.start()

    def setUp(self):
        self.only_troupe("it runs QEMU as root here")

    def nano_xml(self, name, **more):
        return super().nano_xml(name, kind="qemu", **more)  # another user may not use KVM everywhere

    def image(self, name, owner=(0, 0), mode=0o600):
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        os.chown(path, *owner)
        os.chmod(path, mode)
        return path

    def disk(self, path, more="", target="vda"):
        return ("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'>%s</source>"
                "<target dev='%s' bus='virtio'/></disk>" % (path, more, target))


@unittest.skipUnless(os.getuid() == 0, "only root can confine")
class Privileges(AnotherUser):
    """What a QEMU is, as /proc tells."""

    def test_it_is_its_user_and_has_no_capability(self):
        self.start_nano("cell", devices=self.disk(self.image("cell.img")))
        pid = self.daemon.qemu("cell")
        now = status_of(pid)
        self.assertEqual(now["Uid"].split(), ["64055"] * 4)
        self.assertEqual(now["Gid"].split(), ["64056"] * 4)
        self.assertEqual(now["Groups"].split(), ["64056"])
        self.assertEqual({name: now[name] for name in NO_CAPABILITIES}, NO_CAPABILITIES)
        self.assertEqual(now["NoNewPrivs"], "1")
        self.assertEqual(now["Seccomp"], "2")
        self.assertEqual(now["Umask"], "0077")
        limits = {line[:26].strip(): line[26:].split()[:2] for line in read("/proc/%s/limits" % pid).splitlines()}
        self.assertEqual(limits["Max open files"], ["4321", "4321"])
        self.assertEqual(limits["Max core file size"], ["0", "0"])
        for task in os.listdir("/proc/%d/task" % pid):  # vCPUs and workers are no different
            self.assertEqual(status_of("%d/task/%s" % (pid, task))["CapEff"], "0" * 16)

    def test_what_it_has_open_is_its_own(self):
        image = self.image("cell.img")
        self.start_nano("cell", devices=self.disk(image))
        pid = self.daemon.qemu("cell")
        fds = {fd: os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)}
        own = (image, self.path("cell.serial"), os.path.join(self.daemon.guest_logs, "cell.log"), "/dev/null", "/dev/kvm",
               os.path.join(GUEST, "nano.bin"))
        strange = {fd: to for fd, to in fds.items()
                   if to not in own and not to.startswith(("socket:", "anon_inode:", "pipe:", "/memfd:"))}
        self.assertEqual(strange, {})
        sockets = {fd for fd, to in fds.items() if to.startswith("socket:")}
        self.assertLessEqual(len(sockets), 2, fds)  # its monitor's, and the daemon's connection to it

    def test_root_has_no_capability_either_unless_asked_for(self):
        self.define(self.nano_xml("cell", extra="<seclabel type='static' model='dac'><label>+0:+0</label></seclabel>"))
        self.virsh("start", "cell")
        now = status_of(self.daemon.qemu("cell"))
        self.assertEqual(now["Uid"].split(), ["0"] * 4)
        self.assertEqual({name: now[name] for name in NO_CAPABILITIES}, NO_CAPABILITIES)
        self.virsh("destroy", "cell")

        self.configure(self.settings + "clear_emulator_capabilities = 0\nseccomp_sandbox = 0\nset_process_name = 1\n")
        self.addCleanup(self.configure, self.settings)
        self.virsh("start", "cell")
        pid = self.daemon.qemu("cell")
        now = status_of(pid)
        self.assertEqual(now["CapEff"], status_of(self.daemon.pid)["CapPrm"])
        self.assertEqual(now["CapBnd"], now["CapEff"])
        self.assertEqual(now["Seccomp"], "0")
        self.assertEqual(now["Name"], "qemu:cell")
        self.virsh("destroy", "cell")

    def test_a_start_that_cannot_be_confined_says_why(self):
        self.configure("max_files = 4000000000\n")
        self.addCleanup(self.configure, self.settings)
        self.define(self.nano_xml("cell"))
        self.assertIn("cannot limit nofile to 4000000000:4000000000", self.virsh_fails("start", "cell"))
        self.assertEqual(self.daemon.qemus("cell"), [])

    def test_a_directory_that_bars_the_way_is_named_with_the_remedy(self):
        os.mkdir(self.path("barred"), 0o700)
        image = self.image("barred/cell.img")
        before = all_about(image)
        self.define(self.nano_xml("cell", devices=self.disk(image)))
        self.assertIn("`chmod o+x %s`" % self.path("barred"), self.virsh_fails("start", "cell"))
        self.assertEqual(all_about(image), before)
        os.chmod(self.path("barred"), 0o711)
        self.virsh("start", "cell")
        self.assertEqual(os.stat(image).st_uid, 64055)
        self.virsh("destroy", "cell")
        self.assertEqual(all_about(image), before)

    def test_files_get_the_owner_that_their_definition_gives_them(self):
        images = {name: self.image(name, (11, 12), 0o640) for name in ("plain", "other", "left")}
        os.chmod(images["left"], 0o644)
        os.setxattr(images["plain"], "user.note", b"mine")
        before = {name: all_about(path) for name, path in images.items()}
        self.start_nano("cell", devices="".join((
            self.disk(images["plain"]),
            self.disk(images["other"], "<seclabel model='dac'><label>+64055:+77</label></seclabel>", "vdb"),
            self.disk(images["left"], "<seclabel model='dac' relabel='no'/>", "vdc").replace(
                "<target", "<readonly/><target"))))
        now = {name: os.stat(path) for name, path in images.items()}
        self.assertEqual((now["plain"].st_uid, now["plain"].st_gid, now["plain"].st_mode), (64055, 64056, 0o100640))
        self.assertEqual((now["other"].st_uid, now["other"].st_gid), (64055, 77))
        self.assertEqual(all_about(images["left"]), before["left"])
        self.virsh("destroy", "cell")
        self.assertEqual({name: all_about(path) for name, path in images.items()}, before)

    def test_a_guest_may_have_a_user_of_its_own_by_name(self):
        image = self.image("cell.img")
        before = all_about(image)
        user = pwd.getpwnam("daemon")
        self.define(self.nano_xml("cell", devices=self.disk(image),
                                  extra="<seclabel type='static' model='dac' relabel='yes'><label>daemon:daemon</label>"
                                        "</seclabel>"))
        self.virsh("start", "cell")
        now = status_of(self.daemon.qemu("cell"))
        self.assertEqual(now["Uid"].split(), [str(user.pw_uid)] * 4)
        self.assertEqual(os.stat(image).st_uid, user.pw_uid)
        self.virsh("destroy", "cell")
        self.assertEqual(all_about(image), before)

    def test_owners_are_left_alone_when_they_are_to_be(self):
        image = self.image("cell.img", (64055, 12), 0o600)
        before = all_about(image)
        self.configure(self.settings + "dynamic_ownership = 0\n")
        self.addCleanup(self.configure, self.settings)
        self.start_nano("cell", devices=self.disk(image), serial="<serial type='null'/>")
        self.assertEqual(all_about(image), before)

    def test_a_thousand_rounds_leave_nothing_changed(self):
        """Start and stop, destroy, kill and crash in turn. TROUPE_ROUNDS says how often; 20 unless it does."""
        shared, own = self.image("shared", (3, 4), 0o640), self.image("own", (5, 6), 0o604)
        for path in (shared, own):
            os.setxattr(path, "user.note", b"mine")
        devices = self.disk(shared).replace("<target", "<shareable/><target") + self.disk(own, target="vdb")
        for name in ("one", "two"):
            self.define(self.nano_xml(name, devices=devices if name == "one" else devices.split("</disk>")[0] + "</disk>",
                                      serial="<serial type='null'/>"))
        before = {path: all_about(path) for path in (shared, own)}
        self.virsh("start", "one")
        found = group_of(self.daemon.qemu("one"))
        groups = os.path.dirname(found[0]) if found and "troupe" in found[0] else None
        self.virsh("destroy", "one")
        folders = self.leftovers(groups)
        ends = ("destroy", "kill", "crash and destroy", "crash after a kill", "crash at a start")
        for number in range(int(os.environ.get("TROUPE_ROUNDS", "20"))):
            end = ends[number % len(ends)]
            with self.subTest(round=number, end=end):
                if end == "crash at a start":
                    client = subprocess.Popen(["virsh", "-c", self.daemon.uri, "start", "one"], env=CLEAN,
                                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    time.sleep((number * 7 % 50) / 200)
                    self.daemon.kill()
                    client.wait()
                    self.daemon.start()
                    self.virsh("start", "two")
                    # Paused: the daemon died before it let the guest run.
                    wait_until("one is on or off", lambda: self.daemon.state("one") in ("running", "paused", "shut off"))
                else:
                    self.virsh("start", "one")
                    self.virsh("start", "two")
                pids = self.daemon.qemus()
                if end.startswith("crash"):
                    self.daemon.kill()
                if "kill" in end:
                    for pid in pids:
                        os.kill(pid, 9)
                if end.startswith("crash"):
                    self.daemon.start()
                for name in ("one", "two"):
                    if "kill" not in end and self.daemon.state(name) != "shut off":
                        self.virsh("destroy", name)
                    self.daemon.wait_state(name, "shut off")
                wait_until("nothing is left over", lambda: self.leftovers(groups) == folders)
                for path in (shared, own):
                    wait_until("%s is as before" % path, lambda: all_about(path) == before[path], 20)

    def leftovers(self, groups):
        """What lies in the daemon's runtime folder, and the control groups of its guests."""
        found = [os.path.join(folder, entry) for folder, _, files in os.walk(self.daemon.runtime) for entry in files + [""]]
        if groups and os.path.exists(groups):
            found += os.listdir(groups)
        return sorted(found)


class Libvirtd(Peer):
    """A stock libvirtd that confines by users as it does on Debian, whose user it is shown in a passwd of its own."""

    def __init__(self, root):
        super().__init__(root)
        with open(self.settings, "w") as file:
            file.write('stdio_handler = "file"\nuser = "+64055"\ngroup = "+64056"\nnamespaces = []\n'
                       'cgroup_controllers = []\n')

    def command(self):
        binds = ""
        for name, line in (("passwd", "libvirt-qemu:x:64055:64056::/:/bin/false"), ("group", "libvirt-qemu:x:64056:")):
            with open(os.path.join(self.root, name), "w") as file:
                file.write(read("/etc/" + name) + line + "\n")
            binds += "mount --bind %s/%s /etc/%s; " % (self.root, name, name)
        return super().command()[:-1] + [binds + super().command()[-1]]


@unittest.skipUnless(os.getuid() == 0 and shutil.which("libvirtd"), "there is no libvirtd here that could run beside us")
class BesideLibvirt(AnotherUser):
    """A libvirtd and a troupe on one host leave each other's files alone, and in the end as they were."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if cls.daemon.is_peer:
            return
        os.mkdir(os.path.join(cls.place, "peer"))
        cls.peer = Libvirtd(os.path.join(cls.place, "peer"))
        cls.addClassCleanup(cls.clear_peer)
        cls.peer.start()

    @classmethod
    def clear_peer(cls):
        cls.peer.end()

    def both(self, name, **more):
        """The guest `name` of libvirtd, `name`-too of ours, both with the same image; and all about that before."""
        image = self.image(name + ".img", (5, 6))
        for daemon, called in ((self.peer, name), (self.daemon, name + "-too")):
            xml = self.nano_xml(called, devices=self.disk(image), serial="<serial type='null'/>", **more)
            daemon.virsh("define", self.write("define.xml", xml))
        return image, all_about(image)

    def test_what_libvirt_uses_is_neither_taken_nor_given_back(self):
        image, before = self.both("theirs")
        self.peer.virsh("start", "theirs")
        held = all_about(image)
        self.assertEqual(held[:2], (64055, 64056))
        self.assertIn("lock", self.virsh_fails("start", "theirs-too"))  # the same owner, but QEMU locks it
        self.assertEqual(all_about(image), held)
        self.define(self.nano_xml("another", devices=self.disk(image),
                                  extra="<seclabel type='static' model='dac' relabel='yes'><label>+7:+8</label></seclabel>"))
        self.assertIn("'%s' is in use by another supervisor's guest" % image, self.virsh_fails("start", "another"))
        self.assertEqual(all_about(image), held)
        self.peer.virsh("destroy", "theirs")
        self.assertEqual(all_about(image), before)

    def test_what_we_use_is_given_back_whatever_libvirt_does_to_its_notes(self):
        image, before = self.both("ours")
        self.virsh("start", "ours-too")
        self.assertEqual(os.getxattr(image, "trusted.libvirt.security.dac"), b"+5:+6")
        self.assertIn("lock", self.peer.virsh_fails("start", "ours"))  # and libvirt removes the notes
        self.virsh("destroy", "ours-too")
        self.assertEqual(all_about(image), before)

    def test_the_last_of_two_gives_back_what_both_use(self):
        kernel = self.image("kernel", (5, 6), 0o604)
        before = all_about(kernel)
        for first_ends_first in (True, False):
            for daemon, called in ((self.peer, "theirs"), (self.daemon, "mine")):
                xml = self.nano_xml(called, serial="<serial type='null'/>").replace(
                    "<loader", "<kernel>%s</kernel><loader" % kernel)
                daemon.virsh("define", self.write("define.xml", re.sub(r"<loader.*</loader>", "", xml)))
                daemon.virsh("start", called, "--paused")
            ends = [(self.peer, "theirs"), (self.daemon, "mine")]
            for daemon, called in ends if first_ends_first else reversed(ends):
                self.assertEqual(all_about(kernel)[:2], (64055, 64056))
                daemon.virsh("destroy", called)
                daemon.virsh("undefine", called)
            self.assertEqual(all_about(kernel), before)


if __name__ == "__main__":
    main()
