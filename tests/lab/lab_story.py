"""What the tests under an enforcing kernel share: stories, with disks and a look at what the kernel says of a guest."""

import json
import os
import subprocess
import sys
import unittest.mock

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../stories"))

from troupe_story import Story, read, start_daemon, wait_until  # noqa: E402

AUDIT = "/var/log/audit/audit.log"


def label_of(pid):
    """The label the kernel has of a process."""
    return read("/proc/%s/attr/current" % pid).strip("\0\n")


class LabStory(Story):
    """A daemon under the kernel's module, and without Landlock, which would refuse as much."""

    settings = "landlock = 0\n"

    @classmethod
    def setUpClass(cls):
        def begin(root, **options):
            os.makedirs(os.path.join(root, "etc/troupe"))
            with open(os.path.join(root, "etc/troupe/qemu.conf"), "w") as file:
                file.write(cls.settings)
            cls.prepare(root)
            return start_daemon(root, **options)
        with unittest.mock.patch("troupe_story.start_daemon", begin):
            super().setUpClass()

    @classmethod
    def prepare(cls, root):
        """What an administrator does before the daemon starts."""

    def disk(self, name, **owner):
        path = self.path(name)
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", path, "1M"], check=True)
        os.chown(path, owner.get("uid", 0), owner.get("gid", 0))
        return path

    def disk_xml(self, path, target="vda", inside="", source=""):
        return ("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'>%s</source>"
                "<target dev='%s' bus='virtio'/>%s</disk>" % (path, source, target, inside))

    def monitor(self, name, command, **arguments):
        text = self.virsh("qemu-monitor-command", name, json.dumps({"execute": command, "arguments": arguments}))
        return json.loads(text)

    def opens(self, name, path, readonly=False):
        """None when the guest's QEMU may open the file, else QEMU's complaint."""
        answer = self.monitor(name, "blockdev-add", driver="file", filename=path, **{"node-name": "probe", "read-only": readonly})
        if "error" in answer:
            return answer["error"]["desc"]
        self.monitor(name, "blockdev-del", **{"node-name": "probe"})
        return None

    def assert_denied(self, name, path, readonly=False):
        self.assertIn("Permission denied", str(self.opens(name, path, readonly)))

    def seclabels(self, name, *options):
        """The seclabel elements of a guest as text, without the white space between them."""
        import xml.etree.ElementTree as tree
        root = tree.fromstring(self.virsh("dumpxml", name, *options))
        return [(each.get("type"), each.get("model"), each.get("relabel"),
                 {child.tag: child.text for child in each}) for each in root.findall("seclabel")]

    def start(self, name, devices="", extra="", options=("--paused",)):
        self.define(self.nano_xml(name, devices=devices, extra=extra))
        self.virsh("start", name, *options)
        return self.daemon.qemu(name)

    def audit(self):
        return read(AUDIT)
