"""`troupe check`: what a start would be refused is told before it, with what helps; and the start then agrees."""

import json
import os
import shutil
import socket
import subprocess
import unittest

from troupe_story import BIN, CLEAN, CommandFailed, Story, main, run


class Check(Story):
    def setUp(self):
        super().setUp()
        self.only_troupe("it has no such thing")
        self.folder = self.path("images")
        os.mkdir(self.folder)
        self.addCleanup(shutil.rmtree, self.folder)
        self.image = os.path.join(self.folder, "disk.img")
        with open(self.image, "wb") as file:
            file.truncate(1 << 20)

    def troupe(self, *arguments):
        return run([os.path.join(BIN, "troupe"), "--" + self.daemon.instance, "--root", self.daemon.root, *arguments])

    def troupe_fails(self, *arguments):
        with self.assertRaises(CommandFailed) as caught:
            self.troupe(*arguments)
        return caught.exception

    def define_with(self, source, more=""):
        return self.define(self.nano_xml("checked", kind="qemu", devices="<disk type='file'>%s<target dev='vda' bus='virtio'/></disk>" % source,
                                         extra=more))

    def test_nothing_in_the_way(self):
        os.chmod(self.folder, 0o755)
        self.define_with("<source file='%s'/>" % self.image)
        self.assertIn("nothing stands in the way", self.troupe("check", "checked"))
        answer = json.loads(self.troupe("check", "checked", "--json"))
        self.assertEqual([], answer["denials"])
        self.assertIn(self.image, answer["looked_at"])
        self.virsh("start", "checked")
        self.assertIn("nothing stands in the way", self.troupe("check", "checked"))  # nor of one that runs

    @unittest.skipIf(os.getuid() != 0, "needs root, to run the guest as somebody else")
    def test_what_is_foretold_is_what_a_start_meets_and_the_remedy_helps(self):
        os.chmod(self.folder, 0o700)
        self.define_with("<source file='%s'/>" % self.image,
                         "<seclabel type='static' model='dac' relabel='yes'><label>+64055:+64055</label></seclabel>")
        failed = self.troupe_fails("check", "checked")
        self.assertIn("user 64055 may not search the directory '%s'" % self.folder, failed.out)
        self.assertIn("needed for: " + self.image, failed.out)
        self.assertIn(self.folder, self.virsh_fails("start", "checked"))
        denials = json.loads(self.troupe_fails("check", "checked", "--json").out)["denials"]
        self.assertEqual([self.folder], [each["path"] for each in denials], denials)
        denial = denials[0]
        self.assertEqual(("dac", "search", self.folder, self.image),
                         (denial["layer"], denial["denied"], denial["path"], denial["use"]))
        subprocess.run(denial["remedy"][denial["remedy"].index("chmod"):], shell=True, check=True)
        self.troupe("check", "checked")
        self.virsh("start", "checked")

    def test_what_is_not_there(self):
        self.define_with("<source file='/nowhere/disk.img'/>")
        failed = self.troupe_fails("check", "checked")
        self.assertIn("'/nowhere' is not there", failed.out)
        self.assertIn("nobody", self.troupe_fails("check", "nobody").err)

    def test_varlink(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(self.daemon.runtime, "control"))
        stream = sock.makefile("rb")

        def call(method, **parameters):
            sock.sendall(json.dumps({"method": method, "parameters": parameters}).encode() + b"\0")
            text = b""
            while not text.endswith(b"\0"):
                text += stream.read(1)
            return json.loads(text[:-1])

        self.assertIn("org.troupe.Supervisor", call("org.varlink.service.GetInfo")["parameters"]["interfaces"])
        self.assertEqual("org.troupe.Supervisor.NoSuchGuest", call("org.troupe.Supervisor.Check", guest="nobody")["error"])
        sock.close()

    @unittest.skipIf(not shutil.which("varlinkctl"), "needs varlinkctl, of systemd 255 or later")
    def test_varlinkctl(self):
        address = "unix:" + os.path.join(self.daemon.runtime, "control")
        self.assertIn("method Check", run(["varlinkctl", "introspect", address, "org.troupe.Supervisor"]))


if __name__ == "__main__":
    main()
