"""The daemon is killed with SIGKILL at any moment: guests run on, the next daemon takes them up, nothing is left over."""

import os
import signal
import sqlite3
import subprocess
import time

from troupe_story import CLEAN, Daemon, Story, main, read, wait_until


class Crash(Story):
    def image(self, name):
        """A disk image with an owner of its own, to see that it gets it back."""
        path = self.path(name + ".img")
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        os.chmod(path, 0o600)
        return path

    def disk(self, path):
        return ("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/>"
                "<target dev='vda' bus='virtio'/></disk>" % path)

    @staticmethod
    def owner(path):
        found = os.stat(path)
        return found.st_uid, found.st_gid, found.st_mode & 0o7777

    def crash(self):
        self.daemon.kill()
        self.daemon.start()

    def test_guests_run_on_and_are_taken_up_as_they_are(self):
        names = {"walks": "running", "sleeps": "paused", "waits": "paused"}
        for name in names:
            self.start_nano(name, *(["--paused"] if name == "waits" else []))
        self.virsh("suspend", "sleeps")
        before = {name: (self.daemon.qemu(name), self.virsh("domid", name), self.virsh("dumpxml", name)) for name in names}
        self.crash()
        for name, state in names.items():
            self.daemon.wait_state(name, state)
            self.assertEqual(self.daemon.qemu(name), before[name][0])
            self.assertEqual(self.virsh("domid", name), before[name][1])
            self.assertEqual(self.virsh("dumpxml", name), before[name][2])
        self.virsh("suspend", "walks")
        self.virsh("resume", "sleeps")
        self.assertEqual(self.virsh("domstate", "sleeps"), "running")
        self.virsh("resume", "waits")
        self.wait_serial("waits", "guest: nano is up")
        self.virsh("shutdown", "waits")
        self.daemon.wait_state("waits", "shut off")
        self.virsh("destroy", "walks")
        self.assertEqual(self.daemon.qemus("walks"), [])

    def test_a_second_daemon_gives_new_ids(self):
        self.start_nano("old")
        number = int(self.virsh("domid", "old"))
        self.crash()
        self.start_nano("new")
        self.assertGreater(int(self.virsh("domid", "new")), number)

    def test_what_happened_meanwhile_is_found_out(self):
        self.start_nano("died")
        self.start_nano("paused")
        self.start_nano("lived")
        self.daemon.kill()
        victim = self.daemon.qemu("died")
        os.kill(victim, signal.SIGKILL)
        wait_until("QEMU is gone", lambda: victim not in self.daemon.qemus("died"))
        self.daemon.start()
        self.daemon.wait_state("died", "shut off")
        self.assertEqual(self.virsh("domstate", "lived"), "running")
        self.virsh("start", "died")

    def test_a_guest_without_definition_survives_too(self):
        self.virsh("create", self.write("loose.xml", self.nano_xml("loose")))
        pid, its_uuid = self.daemon.qemu("loose"), self.virsh("domuuid", "loose")
        self.crash()
        self.daemon.wait_state("loose", "running")
        self.assertEqual((self.daemon.qemu("loose"), self.virsh("domuuid", "loose")), (pid, its_uuid))
        self.assertRegex(self.virsh("dominfo", "loose"), r"Persistent: +no")

    def test_an_orderly_end_leaves_guests_running(self):
        self.start_nano("stays")
        pid = self.daemon.qemu("stays")
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.daemon.wait_state("stays", "running")
        self.assertEqual(self.daemon.qemu("stays"), pid)

    def test_a_definition_that_was_answered_is_on_disk(self):
        for number in range(10):
            self.define(self.nano_xml("kept%d" % number))
            self.virsh("autostart", "kept%d" % number)
            self.daemon.kill()
            self.assertIn("kept%d" % number, read(os.path.join(self.daemon.definitions, "kept%d.xml" % number)))
            self.daemon.start()
            self.daemon.wait_state("kept%d" % number, "shut off")
            self.virsh("autostart", "kept%d" % number, "--disable")

    def test_killed_at_ten_points_of_a_start(self):
        self.at_ten_points("start", "shut off")

    def test_killed_at_ten_points_of_a_destroy(self):
        self.at_ten_points("destroy", "running")

    def at_ten_points(self, command, first):
        """The daemon dies at ten moments spread over `command`; afterwards what it says, what runs and what lies on disk agree."""
        self.only_troupe("promise of ours")
        image = self.image("point")
        untouched = self.owner(image)
        self.define(self.nano_xml("point", devices=self.disk(image)))
        self.virsh("start", "point")
        held = self.owner(image)
        self.virsh("destroy", "point")
        wait_until("the image has its owner back", lambda: self.owner(image) == untouched)

        def reach(state):
            if self.virsh("domstate", "point") != state:
                self.virsh("start" if state == "running" else "destroy", "point")

        reach(first)
        started = time.monotonic()
        self.virsh(command, "point")
        lasts = time.monotonic() - started
        found = []
        for point in range(10):
            reach(first)
            client = subprocess.Popen(["virsh", "-c", self.daemon.uri, command, "point"], env=CLEAN,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            time.sleep(lasts * (point + 1) / 11)
            self.daemon.kill()
            client.communicate()
            self.daemon.start()
            with self.subTest(point=point):
                wait_until("point is running or off", lambda: self.virsh("domstate", "point") in ("running", "paused", "shut off"))
                state = self.virsh("domstate", "point")
                found.append(state)
                if state == "shut off":
                    wait_until("no QEMU is left", lambda: not self.daemon.qemus("point"))
                    wait_until("the image has its owner back", lambda: self.owner(image) == untouched)
                    self.assertEqual(self.leftovers("point"), [])
                else:
                    pid = self.daemon.qemu("point")
                    self.assertEqual(self.owner(image), held)
                    self.virsh("suspend", "point")
                    self.virsh("resume", "point")
                    self.assertEqual(self.daemon.qemu("point"), pid)
        print("killed during %s, found:" % command, ", ".join(found))
        reach("shut off")
        wait_until("no QEMU is left", lambda: not self.daemon.qemus("point"))
        self.assertEqual(self.owner(image), untouched)
        self.assertEqual(self.leftovers("point"), [])
        self.assertEqual(self.daemon.stop(), 0)  # it alone may have the ledger open
        rows = self.ledger_rows()
        self.daemon.start()
        self.assertEqual(rows, {})

    def leftovers(self, name):
        """Files of a guest that is off, below the daemon's runtime folder."""
        return [os.path.join(folder, entry) for folder, folders, files in os.walk(self.daemon.runtime)
                for entry in folders + files if name in entry]

    def ledger_rows(self):
        """Tables of the ledger about running guests and changed files that are not empty."""
        rows = {}
        for folder, _, files in os.walk(self.path("var/lib/troupe")):
            for file in files:
                if read(os.path.join(folder, file))[:15] != "SQLite format 3":
                    continue
                ledger = sqlite3.connect("file:%s?mode=ro" % os.path.join(folder, file), uri=True)
                for (table,) in ledger.execute("select name from sqlite_master where type = 'table'").fetchall():
                    count = ledger.execute('select count(*) from "%s"' % table).fetchone()[0]
                    if count and table in ("guests", "files", "operations"):
                        rows[table] = count
                ledger.close()
        return rows

    def test_owners_return_however_a_guest_ends(self):
        self.only_troupe("its DAC driver is off in these stories")
        for end in ("destroy", "shutdown", "SIGKILL"):
            image = self.image(end)
            untouched = self.owner(image)
            name = self.start_nano("by-" + end, devices=self.disk(image))
            if end == "SIGKILL":
                os.kill(self.daemon.qemu(name), signal.SIGKILL)
            else:
                self.virsh(end, name)
            self.daemon.wait_state(name, "shut off")
            wait_until("the image has its owner back after " + end, lambda: self.owner(image) == untouched)


class FirstStart(Story):
    """What a daemon finds when it starts for the first time."""

    def test_autostart_and_broken_definitions(self):
        self.only_troupe("the peer has folders of its own")
        root = self.path("fresh")
        os.makedirs(os.path.join(root, "etc/troupe/qemu/autostart"))
        definitions = os.path.join(root, "etc/troupe/qemu")
        for name in ("eager", "lazy"):
            with open(os.path.join(definitions, name + ".xml"), "w") as file:
                file.write(self.nano_xml(name))
        with open(os.path.join(definitions, "broken.xml"), "w") as file:
            file.write("<domain type='qemu'><name>broken")
        os.symlink("../eager.xml", os.path.join(definitions, "autostart/eager.xml"))
        fresh = Daemon(root)
        fresh.start()
        self.addCleanup(fresh.end)
        self.wait_serial("eager", "guest: nano is up")
        fresh.wait_state("eager", "running")
        self.assertEqual(fresh.virsh("list", "--all", "--name").split(), ["eager", "lazy"])
        self.assertEqual(fresh.state("lazy"), "shut off")
        self.assertIn("broken", read(fresh.output), "the log names the file that was left out")


if __name__ == "__main__":
    main()
