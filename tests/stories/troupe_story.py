"""What the stories share: a private daemon in a temporary root, stock virsh, guests to run in it.

Environment, set by ctest: TROUPE_BIN, the folder of the programs; TROUPE_GUEST, what tests/make-guest made.
With TROUPE_PEER=libvirtd the same stories run against a private stock libvirtd (as root, when it is installed): that is
how their expectations were found. Stories that only make sense for Troupe skip themselves there.
"""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from troupe_wire import Wire

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("TROUPE_BIN", os.path.join(SOURCE, "build", "bin"))
GUEST = os.environ.get("TROUPE_GUEST", os.path.join(SOURCE, "build", "guest"))
PEER = os.environ.get("TROUPE_PEER")
EMULATOR = shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64"
PATIENCE = float(os.environ.get("TROUPE_PATIENCE", "60"))  # seconds until a wait is given up; never a measure of speed

# A clean environment for clients: nothing of the caller's libvirt settings, and English output.
CLEAN = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
CLEAN.update((name, os.environ[name]) for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if name in os.environ)


def wait_until(what, probe, patience=PATIENCE):
    """Calls `probe` until it returns something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("waited %g s in vain: %s" % (patience, what))
        time.sleep(0.02)


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def accel(kind="nano"):
    """'kvm' or 'tcg': what this machine runs the nano guest (or the Linux guest) with."""
    return read(os.path.join(GUEST, "nano-accel" if kind == "nano" else "accel")).strip() or "tcg"


def has_ended(pid):
    """Gone, or a zombie that only waits for its parent."""
    return read("/proc/%s/stat" % pid).rpartition(")")[2].split()[:1] in ([], ["Z"], ["X"])


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


def remove_group(folder):
    """Whether it is gone. It stays for a moment after its last process has ended."""
    try:
        os.rmdir(folder)
    except OSError as failed:
        if failed.errno != errno.ENOENT:
            return False
    return True


class CommandFailed(Exception):
    def __init__(self, arguments, code, out, err):
        self.code, self.out, self.err = code, out, err
        super().__init__("%s: exit %d\n%s%s" % (" ".join(arguments), code, out, err))


def run(arguments, environment=CLEAN, stdin="", patience=PATIENCE, **more):
    """Runs a program to its end; returns its standard output."""
    done = subprocess.run(arguments, env=environment, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=patience, **more)
    if done.returncode:
        raise CommandFailed(arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout


class Daemon:
    """A private daemon below `root`. Crash it, start it again, ask it things."""

    is_peer = False

    def __init__(self, root, instance="system", run_as=None):
        self.root, self.instance, self.run_as, self.process = root, instance, run_as, None
        self.output = os.path.join(root, "daemon.out")
        self.socket = os.path.join(root, "run/troupe/libvirt-sock")
        self.definitions = os.path.join(root, "etc/troupe/qemu")
        self.guest_logs = os.path.join(root, "var/log/troupe/qemu")
        self.runtime = os.path.join(root, "run/troupe")
        self.settings = os.path.join(root, "etc/troupe/qemu.conf")
        os.makedirs(self.definitions, exist_ok=True)

    @property
    def uri(self):
        return "qemu+unix:///%s?socket=%s" % (self.instance, self.socket)

    def command(self):
        return [os.path.join(BIN, "trouped"), "--" + self.instance, "--root", self.root]

    def environment(self):
        return CLEAN

    def start(self):
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=self.environment(), cwd="/", preexec_fn=self.run_as)
        wait_until("the daemon answers; it said:\n" + read(self.output), self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError("the daemon ended with %d:\n%s" % (self.process.returncode, read(self.output)))
        try:
            Wire(self.socket).socket.close()
            return True
        except (OSError, EOFError):
            return False

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """kill -9: what a crash, the OOM killer or an upgrade gone wrong does."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """It and all its QEMUs are killed, and the control groups that nobody is left to remove go."""
        self.kill()
        pids = self.qemus()
        groups = {found[0] for found in map(group_of, pids) if found and "/troupe-" in found[0]}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until("the QEMUs are gone", lambda: all(map(has_ended, pids)))
        for folder in sorted(groups) + sorted(set(map(os.path.dirname, groups))):
            wait_until("the control group %s can go" % folder, lambda: remove_group(folder))

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def serves(self):
        """The daemon is the same process as ever and still answers."""
        return self.process.poll() is None and self._answers()

    # Clients.

    def wire(self, **options):
        return Wire(self.socket, **options)

    def virsh(self, *arguments, **options):
        """Stock virsh; returns what it printed. Raises CommandFailed when it fails."""
        return run(["virsh", "-c", self.uri, *map(str, arguments)], **options).strip()

    def virsh_fails(self, *arguments, **options):
        """Stock virsh, expected to fail; returns its complaint."""
        try:
            out = self.virsh(*arguments, **options)
        except CommandFailed as failed:
            return failed.err.strip()
        raise AssertionError("virsh %s did not fail: %s" % (" ".join(map(str, arguments)), out))

    def state(self, name):
        return self.virsh("domstate", name)

    def wait_state(self, name, state):
        wait_until("%s is %s" % (name, state), lambda: self.state(name) == state)

    # What can be seen from outside.

    def qemus(self, name=None):
        """Process ids of the QEMUs (of guest `name`) that this daemon or one before it in the same root started."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % entry, "rb") as file:
                    arguments = file.read().decode(errors="replace").split("\0")
                if "-name" not in arguments or not self.owns(entry, arguments):
                    continue
                named = re.match(r"(?:guest=)?([^,]*)", arguments[arguments.index("-name") + 1])[1]
                if name in (None, named) and not has_ended(entry):
                    found.append(int(entry))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def owns(self, entry, arguments):
        """Something of our root is in the process's hands: an argument, or an open file such as its log."""
        if any(self.root in argument for argument in arguments):
            return True
        folder = "/proc/%s/fd" % entry
        return any(os.readlink(os.path.join(folder, fd)).startswith(self.root) for fd in os.listdir(folder))

    def qemu(self, name):
        pids = self.qemus(name)
        assert len(pids) == 1, "guest %s has QEMU processes %s" % (name, pids)
        return pids[0]

    def guest_log(self, name):
        return read(os.path.join(self.guest_logs, name + ".log"))


class Peer(Daemon):
    """Stock libvirtd in a mount namespace of its own, its folders below `root`."""

    is_peer = True
    folders = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt",
               "log": "/var/log/libvirt", "run": "/run/libvirt"}

    def __init__(self, root, instance="system", run_as=None):
        super().__init__(root, instance, run_as)
        self.socket = os.path.join(root, "run/libvirt-sock")
        self.definitions = os.path.join(root, "etc/qemu")
        self.guest_logs = os.path.join(root, "log/qemu")
        self.runtime = os.path.join(root, "run/qemu")
        self.settings = os.path.join(root, "etc/qemu.conf")
        self.pid_file = os.path.join(root, "libvirtd.pid")
        for folder, place in self.folders.items():
            shutil.rmtree(os.path.join(root, folder), ignore_errors=True)
            os.makedirs(place, exist_ok=True)
            if folder in ("etc", "lib"):
                shutil.copytree(place, os.path.join(root, folder), symlinks=True)
            else:
                os.makedirs(os.path.join(root, folder))
        shutil.rmtree(os.path.join(self.definitions, "networks"), ignore_errors=True)
        with open(self.settings, "w") as file:
            file.write('stdio_handler = "file"\nsecurity_driver = "none"\n')
        os.mknod(os.path.join(root, "kvm"), 0o20666, os.makedev(10, 232))

    def command(self):
        binds = "".join("mount --bind %s/%s %s; " % (self.root, folder, place) for folder, place in self.folders.items())
        return ["unshare", "-m", "--propagation", "private", "sh", "-ec",
                binds + "[ ! -e /dev/kvm ] || { mount --bind %s/kvm /dev/kvm; chmod 666 /dev/kvm; }; "
                "exec libvirtd -p %s" % (self.root, self.pid_file)]

    def owns(self, entry, arguments):
        return self.root in read("/proc/%s/mountinfo" % entry)


def start_daemon(root, **options):
    daemon = (Peer if PEER == "libvirtd" else Daemon)(root, **options)
    daemon.start()
    return daemon


class Story(unittest.TestCase):
    """A daemon for the whole class, in a folder that is removed afterwards with every QEMU that still runs there."""

    daemon_options = {}
    longMessage = True

    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.mkdtemp(prefix="troupe-story-")
        os.chmod(cls.place, 0o755)  # QEMU may run as another user
        cls.addClassCleanup(cls.clear)
        cls.daemon = start_daemon(cls.place, **cls.daemon_options)
        cls.virsh = cls.daemon.virsh
        cls.virsh_fails = cls.daemon.virsh_fails

    @classmethod
    def clear(cls):
        daemon = getattr(cls, "daemon", None)
        if daemon:
            daemon.end()
            if os.environ.get("TROUPE_SHOW_DAEMON"):
                sys.stderr.write(read(daemon.output))
        shutil.rmtree(cls.place, ignore_errors=True)

    def tearDown(self):
        """Whatever a story did, the daemon lives; what it defined goes."""
        self.assertIsNone(self.daemon.process.poll(), "the daemon died:\n" + read(self.daemon.output)[-4000:])
        with self.daemon.wire() as wire:
            for domain in wire.list():
                if wire.state(domain)[0] not in (5, 0):
                    self.daemon.virsh("destroy", domain.name)
                if domain.name in self.daemon.virsh("list", "--all", "--name").split():
                    self.daemon.virsh("undefine", domain.name)

    def only_troupe(self, why):
        if self.daemon.is_peer:
            self.skipTest("libvirtd differs: " + why)

    def path(self, *parts):
        return os.path.join(self.place, *parts)

    def serial(self, name):
        """What the guest has written on its serial port so far."""
        return read(self.path(name + ".serial"))

    def wait_serial(self, name, line, times=1):
        wait_until("guest %s says %r %d times; it said:\n%s" % (name, line, times, self.serial(name)),
                   lambda: self.serial(name).count(line) >= times)

    def nano_xml(self, name, devices="", kind=None, emulator=EMULATOR, serial=None, extra="", machine="q35"):
        """The definition of a nano guest: up in milliseconds, its serial port in NAME.serial."""
        serial = serial or "<serial type='file'><source path='%s'/></serial>" % self.path(name + ".serial")
        return """<domain type='%s'>
  <name>%s</name>
  <memory unit='MiB'>8</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='%s'>hvm</type>
    <loader readonly='yes' type='rom'>%s</loader>
  </os>
  <features><acpi/></features>
  %s
  <devices>
    <emulator>%s</emulator>
    <controller type='usb' model='none'/>
    %s
    %s
    <memballoon model='none'/>
  </devices>
</domain>
""" % (kind or {"kvm": "kvm", "tcg": "qemu"}[accel()], name, machine, os.path.join(GUEST, "nano.bin"), extra, emulator,
       serial, devices)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def define(self, xml):
        """Defines from text; returns the name."""
        self.virsh("define", self.write("define.xml", xml))
        return re.search("<name>([^<]*)</name>", xml)[1]

    def start_nano(self, name, *options, **xml):
        self.define(self.nano_xml(name, **xml))
        self.virsh("start", name, *options)
        if "--paused" not in options:
            self.wait_serial(name, "guest: nano is up")
        return name


class Events:
    """`virsh event --all --loop` beside the story, its lines as they come."""

    def __init__(self, story, *filters):
        self.story, self.text = story, ""
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "virsh", "-c", story.daemon.uri, "event", *(filters or ("--all",)), "--loop"], env=CLEAN,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        """Ready when an event has come: virsh does not say when it listens."""
        def heard():
            self.story.define(self.story.nano_xml("probe"))
            self.story.virsh("undefine", "probe")
            return "probe" in self.text + "".join(self.lines())
        wait_until("virsh event hears of a guest", heard)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def lines(self):
        self.text += (self.process.stdout.read() or b"").decode(errors="replace")
        return self.text.splitlines()

    def wait(self, *expected):
        """Waits until the lines that contain each of `expected` came, in this order; other lines may be between."""
        def came():
            rest = iter(self.lines())
            return all(any(part in line for line in rest) for part in expected)
        try:
            wait_until("events " + " / ".join(expected), came)
        except AssertionError as failed:
            raise AssertionError("%s\nseen:\n%s" % (failed, self.text)) from None


def main():
    if PEER and (os.getuid() != 0 or not shutil.which("libvirtd")):
        print("skipped: the peer needs root and libvirtd")
        sys.exit(77)
    unittest.main(verbosity=2)
