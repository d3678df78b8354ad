"""Guests under AppArmor. Run by tests/lab/run, as root in a VM whose kernel enforces it."""

import ctypes
import os
import subprocess
import unittest

from lab_story import LabStory, label_of, read, wait_until
from troupe_story import BIN

PROFILES = "/sys/kernel/security/apparmor/profiles"
UUID = "5a2c3f6e-0d4b-4c1a-9b70-0f1e2d3c4b%02x"


class TwoGuests(LabStory):
    daemon_options = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.policy = os.path.join(cls.place, "etc/apparmor.d/troupe")

    def guest(self, number, devices="", extra="", **more):
        name = "cell%d" % number
        return self.start(name, devices, "<uuid>%s</uuid>%s" % (UUID % number, extra), **more)

    def profile(self, number):
        return "troupe-" + UUID % number

    def loaded(self, number):
        return any(line.startswith(self.profile(number) + " ") for line in read(PROFILES).splitlines())

    def left_of(self, number):
        there = [each for each in os.listdir(self.policy) if self.profile(number) in each] if os.path.isdir(self.policy) else []
        return there + (["loaded"] if self.loaded(number) else [])

    def test_each_is_denied_the_others_disk_and_nothing_is_left(self):
        disks = [self.disk("a.img"), self.disk("b.img")]
        before = [os.stat(each) for each in disks]
        pids = [self.guest(number, self.disk_xml(disks[number])) for number in (0, 1)]
        for number in (0, 1):
            self.assertEqual(label_of(pids[number]), self.profile(number) + " (enforce)")
            self.assertIsNone(self.opens("cell%d" % number, disks[number], readonly=True))
            # Of the same user, so nothing but the profile stands between.
            self.assertEqual(os.stat(disks[0]).st_uid, os.stat(disks[1]).st_uid)
            self.assert_denied("cell%d" % number, disks[1 - number])
            self.assert_denied("cell%d" % number, "/etc/hostname", readonly=True)
        self.assertIn('apparmor="DENIED" operation="open"', self.audit())
        self.assertIn('profile="%s"' % self.profile(0), self.audit())
        self.virsh("destroy", "cell0")
        self.assertEqual(self.left_of(0), [])
        self.assertTrue(self.loaded(1))
        self.virsh("destroy", "cell1")
        self.assertEqual(self.left_of(1), [])
        for path, was in zip(disks, before):
            now = os.stat(path)
            self.assertEqual((now.st_uid, now.st_gid, now.st_mode), (was.st_uid, was.st_gid, was.st_mode))

    def test_clients_are_told_the_label(self):
        self.guest(2)
        name = self.profile(2)
        labels = self.seclabels("cell2")
        self.assertEqual(labels[0], ("dynamic", "apparmor", "yes", {"label": name, "imagelabel": name}))
        self.assertEqual(labels[1][1], "dac")
        info = self.virsh("dominfo", "cell2")
        self.assertRegex(info, r"Security model:\s+apparmor\n")
        self.assertRegex(info, r"Security label:\s+%s \(enforcing\)" % name)
        self.assertIn("<model>apparmor</model>", self.virsh("capabilities"))
        self.assertEqual(self.seclabels("cell2", "--inactive"), [])
        self.virsh("destroy", "cell2")
        self.assertEqual(self.seclabels("cell2"), [])

    def test_a_daemon_that_is_killed_leaves_no_profile(self):
        disk = self.disk("k.img")
        pid = self.guest(3, self.disk_xml(disk))
        self.daemon.kill()
        self.assertTrue(self.loaded(3))
        self.daemon.start()
        self.assertEqual(label_of(pid), self.profile(3) + " (enforce)")
        self.assertEqual(self.seclabels("cell3")[0][3]["label"], self.profile(3))
        self.daemon.kill()
        os.kill(pid, 9)
        self.daemon.start()
        wait_until("the profile is gone", lambda: not self.loaded(3))
        wait_until("its files are gone", lambda: self.left_of(3) == [])
        wait_until("the disk is whose it was", lambda: os.stat(disk).st_uid == 0)

    def test_a_start_that_fails_leaves_no_profile(self):
        self.define(self.nano_xml("cell4", extra="<uuid>%s</uuid>" % (UUID % 4)).replace(">8</memory>", ">800000000</memory>"))
        self.virsh_fails("start", "cell4")
        wait_until("nothing is left", lambda: self.left_of(4) == [])

    def test_what_an_administrator_changed_is_kept(self):
        self.guest(5)
        path = os.path.join(self.policy, self.profile(5))
        text = read(path)
        self.virsh("destroy", "cell5")
        with open(path, "w") as file:
            file.write(text.replace("(attach_disconnected)", "(attach_disconnected, complain)"))
        changed = read(path)
        other = self.disk("other.img")
        pid = self.guest(5)
        self.assertEqual(label_of(pid), self.profile(5) + " (complain)")
        self.assertRegex(self.virsh("dominfo", "cell5"), r"Security label:\s+%s \(permissive\)" % self.profile(5))
        self.assertEqual(read(path), changed)
        self.virsh("destroy", "cell5")
        self.assertFalse(self.loaded(5))
        self.assertEqual(read(path), changed)
        os.unlink(path)

    def test_a_readonly_disk_is_not_written_and_a_static_profile_is_entered(self):
        disk = self.disk("ro.img")
        self.guest(6, self.disk_xml(disk, inside="<readonly/>"))
        self.assert_denied("cell6", disk)
        self.assertIsNone(self.opens("cell6", disk, readonly=True))
        self.virsh("destroy", "cell6")
        subprocess.run(["apparmor_parser", "--replace"], input="profile mine flags=(complain) { file, }", text=True, check=True)
        pid = self.guest(7, extra="<seclabel type='static' model='apparmor' relabel='no'><label>mine</label></seclabel>")
        self.assertEqual(label_of(pid), "mine (complain)")
        self.virsh("destroy", "cell7")
        self.assertIn("mine (complain)", read(PROFILES))
        self.assertIn("baselabel", self.define_and_fail(
            8, "<seclabel type='dynamic' model='apparmor'><baselabel>mine</baselabel></seclabel>"))
        self.assertIn("'nowhere' is not loaded", self.define_and_fail(
            8, "<seclabel type='static' model='apparmor'><label>nowhere</label></seclabel>"))
        pid = self.guest(9, extra="<seclabel type='none' model='apparmor'/>")
        self.assertEqual(label_of(pid), "unconfined")

    def define_and_fail(self, number, extra):
        self.define(self.nano_xml("cell%d" % number, extra="<uuid>%s</uuid>%s" % (UUID % number, extra)))
        return self.virsh_fails("start", "cell%d" % number)


class Profiles(unittest.TestCase):
    """The helper by itself: the kernel takes a path for what it is, whatever is in it."""

    odd = ["plain", "with space", "quote\"s", "star*", "what?", "[ab]", "{a,b}", "^a", "back\\slash", "@{HOME}", "new\nline",
           "tab\there", "comma,", "#hash", "\u00fcml\u00e4ut", "dollar$x", "trailing ", "\\134", "a\\", "bell\a"]

    def test_odd_names(self):
        folder = "/var/tmp/odd"
        os.makedirs(folder, exist_ok=True)
        name = "troupe-" + UUID % 0xff
        program = "import ctypes,os,sys\naa=ctypes.CDLL('libapparmor.so.1')\n" \
                  "if aa.aa_change_profile(%r.encode()): sys.exit(99)\n" \
                  "import json\nbad=[]\nfor path, may in json.loads(sys.argv[1]):\n" \
                  "  try: os.close(os.open(path, os.O_RDWR)); seen=True\n  except PermissionError: seen=False\n" \
                  "  if seen != may: bad.append(path)\nprint(json.dumps(bad))" % name
        allowed, refused = [], []
        for each in self.odd:
            path = os.path.join(folder, each)
            allowed.append(path)
            refused.append(path + "x")
        # What a pattern would match if one were taken for it.
        refused += [os.path.join(folder, each) for each in ("starlet", "whatx", "a", "b", "ab", "ba", "backslash", "nline", "\\")]
        for path in allowed + refused:
            open(path, "w").close()
        # Python itself must run under the profile.
        rules = ["w" + path for path in allowed] + ["d/usr/lib/python3.11", "d/usr/local/lib"]
        request = "\0".join(["l", "/etc/apparmor.d", name] + rules) + "\0"
        answer = subprocess.run([os.path.join(BIN, "troupe-apparmor")], input=request.encode(), stdout=subprocess.PIPE)
        self.assertEqual((answer.returncode, answer.stdout), (0, b"enforce\n"))
        import json
        cases = [(path, True) for path in allowed] + [(path, False) for path in refused]
        done = subprocess.run(["python3", "-c", program, json.dumps(cases)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.stderr, "")
        self.assertEqual(json.loads(done.stdout), [])
        request = "\0".join(["u", "/etc/apparmor.d", name]) + "\0"
        answer = subprocess.run([os.path.join(BIN, "troupe-apparmor")], input=request.encode(), stdout=subprocess.PIPE)
        self.assertEqual((answer.returncode, answer.stdout), (0, b"\n"))
        self.assertNotIn(name, read(PROFILES))
        self.assertFalse(os.path.exists("/etc/apparmor.d/troupe/" + name))


if __name__ == "__main__":
    unittest.main(verbosity=2)
