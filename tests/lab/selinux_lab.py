"""Guests under SELinux. Run by tests/lab/run, as root in a VM whose kernel enforces it."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from lab_story import LabStory, label_of, read, wait_until
from troupe_story import BIN

PROCESS = "system_u:system_r:svirt_t:s0:"
IMAGE = "system_u:object_r:svirt_image_t:s0:"
SHARED = "system_u:object_r:svirt_image_t:s0"
CONTENT = "system_u:object_r:virt_content_t:s0"


def context(path):
    return os.getxattr(path, "security.selinux").decode().rstrip("\0")


def relabel(path, wanted):
    os.setxattr(path, "security.selinux", wanted.encode() + b"\0")


def setUpModule():
    assert read("/sys/fs/selinux/enforce") == "1"
    tempfile.tempdir = "/var/lib/libvirt"  # the policy knows whose this is
    # QEMU's own emulation makes code at run time, which the policy leaves to the administrator.
    subprocess.run(["setsebool", "virt_use_execmem", "on"], check=True)
    subprocess.run(["chcon", "-t", "virtd_exec_t", os.path.join(BIN, "trouped")], check=True)
    # The tools of these tests run as the tests do, not in domains that may not read their files.
    for tool in ("virsh", "mount", "umount"):
        subprocess.run(["chcon", "-t", "bin_t", shutil.which(tool)], check=True)


class TwoGuests(LabStory):
    # As `semanage fcontext -a -e /var/lib/libvirt /var/lib/troupe` and the like have it.
    folders = {"etc/troupe": "virt_etc_rw_t", "var/lib/troupe": "virt_var_lib_t", "run/troupe": "virt_runtime_t",
               "var/log/troupe": "virt_log_t", "var/cache/troupe": "virt_cache_t"}

    @classmethod
    def prepare(cls, root):
        for folder, kind in cls.folders.items():
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            subprocess.run(["chcon", "-R", "-t", kind, os.path.join(root, folder)], check=True)

    def pair(self, pid):
        label = label_of(pid)
        self.assertRegex(label, "^%sc[0-9]+,c[0-9]+$" % PROCESS)
        low, high = map(int, re.findall("c([0-9]+)", label))
        self.assertLess(low, high)
        return label[len(PROCESS):]

    def facts(self, path):
        info = os.stat(path)
        return context(path), info.st_uid, info.st_gid, info.st_mode

    def test_the_daemon_is_in_its_domain(self):
        self.assertEqual(label_of(self.daemon.pid), "system_u:system_r:virtd_t:s0")

    def test_each_is_denied_the_others_disk_and_labels_come_back(self):
        disks = [self.disk("a.img"), self.disk("b.img")]
        relabel(disks[0], "system_u:object_r:virt_image_t:s0")
        before = [self.facts(each) for each in disks]
        pids = [self.start("cell%d" % number, self.disk_xml(disks[number])) for number in (0, 1)]
        pairs = [self.pair(each) for each in pids]
        self.assertNotEqual(*pairs)
        for number in (0, 1):
            self.assertEqual(context(disks[number]), IMAGE + pairs[number])
            # Of the same user, so nothing but the labels stands between.
            self.assertEqual(os.stat(disks[0]).st_uid, os.stat(disks[1]).st_uid)
            self.assert_denied("cell%d" % number, disks[1 - number])
        audit = self.audit()
        self.assertTrue([line for line in audit.splitlines() if "avc:  denied" in line and "svirt_t:s0:" + pairs[0] in line
                         and "svirt_image_t:s0:" + pairs[1] in line])
        self.virsh("destroy", "cell0")
        self.assertEqual(self.facts(disks[0]), before[0])
        self.assertEqual(context(disks[1]), IMAGE + pairs[1])
        self.virsh("destroy", "cell1")
        self.assertEqual(self.facts(disks[1]), before[1])

    def test_clients_are_told_the_label(self):
        pid = self.start("told")
        label = label_of(pid)
        self.assertEqual(self.seclabels("told")[0],
                         ("dynamic", "selinux", "yes", {"label": label, "imagelabel": IMAGE + self.pair(pid)}))
        info = self.virsh("dominfo", "told")
        self.assertRegex(info, r"Security model:\s+selinux\n")
        self.assertRegex(info, r"Security label:\s+%s \(enforcing\)" % label)
        told = self.virsh("capabilities")
        self.assertIn("<model>selinux</model>", told)
        self.assertIn("<baselabel type='kvm'>system_u:system_r:svirt_t:s0</baselabel>", told)
        self.assertEqual(self.seclabels("told", "--inactive"), [])
        self.virsh("destroy", "told")
        self.define(self.nano_xml("told", extra="<seclabel type='none'/>"))
        self.assertEqual(self.seclabels("told")[0][:2], ("none", "selinux"))

    def test_a_static_label_is_honoured(self):
        disk, other = self.disk("static.img"), self.disk("other.img")
        seclabel = "<seclabel type='static' model='selinux' relabel='yes'><label>%sc10,c20</label></seclabel>" % PROCESS
        pid = self.start("static", self.disk_xml(disk), seclabel)
        self.assertEqual(label_of(pid), PROCESS + "c10,c20")
        self.assertEqual(context(disk), IMAGE + "c10,c20")
        relabel(other, IMAGE + "c10,c21")
        os.chown(other, os.stat(disk).st_uid, os.stat(disk).st_gid)
        self.assert_denied("static", other)
        self.virsh("destroy", "static")
        # Without relabelling the administrator's labels count, and stay.
        relabel(disk, IMAGE + "c10,c20")
        pid = self.start("static", self.disk_xml(disk), seclabel.replace("'yes'", "'no'"))
        self.assertEqual((label_of(pid), context(disk)), (PROCESS + "c10,c20", IMAGE + "c10,c20"))
        self.virsh("destroy", "static")
        self.assertEqual(context(disk), IMAGE + "c10,c20")
        relabel(disk, "system_u:object_r:virt_image_t:s0")
        self.assertIn("Permission denied", self.virsh_fails("start", "static"))
        self.define(self.nano_xml("static", extra="<seclabel type='static' model='selinux'><label>u:r:nonsense_t:s0</label></seclabel>"))
        self.assertIn("u:r:nonsense_t:s0", self.virsh_fails("start", "static"))

    def test_readonly_and_shared_disks_are_for_all(self):
        shared, readonly, own = self.disk("shared.img"), self.disk("readonly.img"), self.disk("own.img")
        before = {each: self.facts(each) for each in (shared, readonly, own)}
        disks = self.disk_xml(shared, "vda", "<shareable/>") + self.disk_xml(readonly, "vdb", "<readonly/>")
        pids = [self.start("one", disks + self.disk_xml(own, "vdc")), self.start("two", disks)]
        self.assertNotEqual(*map(self.pair, pids))
        self.assertEqual((context(shared), context(readonly)), (SHARED, CONTENT))
        self.assert_denied("two", readonly)
        self.assertIsNone(self.opens("two", readonly, readonly=True))
        self.assert_denied("two", own)
        # A disk that is in use cannot become somebody else's.
        self.define(self.nano_xml("three", devices=self.disk_xml(own)))
        self.assertIn("in use by another guest with the selinux label", self.virsh_fails("start", "three"))
        self.virsh("destroy", "one")
        self.assertEqual((context(shared), context(readonly)), (SHARED, CONTENT))
        self.virsh("destroy", "two")
        self.assertEqual({each: self.facts(each) for each in (shared, readonly, own)}, before)

    def test_a_disk_may_have_a_label_of_its_own(self):
        own, kept = self.disk("labelled.img"), self.disk("kept.img")
        relabel(kept, SHARED)
        before = [self.facts(each) for each in (own, kept)]
        label = "system_u:object_r:svirt_image_t:s0"
        self.start("own", self.disk_xml(own, "vda", source="<seclabel model='selinux' relabel='yes'><label>%s</label></seclabel>" % label)
                   + self.disk_xml(kept, "vdb", source="<seclabel model='selinux' relabel='no'/>"))
        self.assertEqual((context(own), context(kept)), (label, SHARED))
        self.virsh("destroy", "own")
        self.assertEqual([self.facts(each) for each in (own, kept)], before)

    def test_a_base_label_gets_a_pair(self):
        base = "system_u:system_r:svirt_t:s0"
        pid = self.start("based", extra="<seclabel type='dynamic' model='selinux'><baselabel>%s</baselabel></seclabel>" % base)
        self.pair(pid)
        self.assertEqual(self.seclabels("based")[0][3]["baselabel"], base)

    def test_a_daemon_that_is_killed_gives_labels_back(self):
        disk = self.disk("killed.img")
        before = self.facts(disk)
        pid = self.start("killed", self.disk_xml(disk))
        label = label_of(pid)
        self.daemon.kill()
        self.assertNotEqual(self.facts(disk), before)
        self.daemon.start()
        self.assertEqual(self.seclabels("killed")[0][3]["label"], label)
        self.daemon.kill()
        os.kill(pid, 9)
        self.daemon.start()
        wait_until("the label is back", lambda: self.facts(disk) == before)

    def test_a_start_that_fails_gives_labels_back(self):
        disk = self.disk("failed.img")
        before = self.facts(disk)
        self.define(self.nano_xml("failed", devices=self.disk_xml(disk)).replace(">8</memory>", ">800000000</memory>"))
        self.virsh_fails("start", "failed")
        wait_until("the label is back", lambda: self.facts(disk) == before)

    def test_a_file_system_with_one_label_for_all_is_used_as_it_is(self):
        mounted = self.path("mounted")
        os.mkdir(mounted)
        subprocess.run(["mount", "-t", "tmpfs", "-o", 'mode=0755,context="%s"' % SHARED, "tmpfs", mounted], check=True)
        self.addCleanup(subprocess.run, ["umount", mounted])
        disk = self.disk("mounted/disk.img")
        pid = self.start("mounted", self.disk_xml(disk))
        self.pair(pid)
        self.assertEqual(context(disk), SHARED)
        self.assertIsNone(self.opens("mounted", disk, readonly=True))
        self.virsh("destroy", "mounted")
        self.assertEqual(context(disk), SHARED)

    def test_the_log_has_what_qemu_says(self):
        self.start("log")
        self.monitor("log", "quit")
        self.daemon.wait_state("log", "shut off")
        self.assertIn("-sandbox", self.daemon.guest_log("log"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
