"""Malformed definitions, malformed packets, emulators that misbehave: a clear error, and the daemon serves on."""

import os
import random
import struct
import subprocess
import threading
import time

from troupe_story import CLEAN, EMULATOR, Story, main, read, wait_until
from troupe_wire import (CONTINUE, ERROR, KEEPALIVE, MESSAGE, PROC, QEMU, REMOTE, REPLY, STREAM, Reader, WireError, i32,
                         optional, packet, string, u32)


def resident_mib(pid):
    return int(next(line for line in read("/proc/%d/status" % pid).splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


class Definitions(Story):
    def refused(self, xml, *words, codes=(21, 27, 35, 67, 92, 1, 8, 84)):
        with self.daemon.wire() as wire:
            with self.assertRaises(WireError) as caught:
                wire.define(xml)
        self.assertIn(caught.exception.code, codes, caught.exception.message)
        if not self.daemon.is_peer:
            for word in words:
                self.assertIn(word, caught.exception.message)
        return caught.exception

    def test_not_xml(self):
        for xml in ("", " ", "no xml", "<", "<domain", "<domain>", "<domain type='qemu'><name>x</name>", "\x01",
                    "<domain type='qemu'><name>x</nam></domain>", "<a/><b/>", "<domain type='qemu' type='kvm'/>"):
            with self.subTest(xml=xml):
                self.refused(xml)
        self.refused(b"<domain type='qemu'><name>\xff\xfe</name></domain>")

    def test_not_a_domain(self):
        self.refused("<network><name>n</name></network>", "network")
        self.refused(self.nano_xml("typed", kind="vax"), "vax")

    def test_entities_do_nothing(self):
        body = "<domain type='qemu'><name>%s</name><memory>8192</memory><os><type>hvm</type></os></domain>"
        laughs = "".join("<!ENTITY l%d '%s'>" % (n, "&l%d;" % (n - 1) * 10 if n else "ha") for n in range(30))
        with self.daemon.wire() as wire:
            for doctype, name in (("<!DOCTYPE d [%s]>" % laughs, "&l29;"),
                                  ("<!DOCTYPE d [<!ENTITY f SYSTEM 'file:///etc/hostname'>]>", "&f;"),
                                  ("<!DOCTYPE d SYSTEM 'file:///etc/passwd'>", "&undefined;")):
                with self.assertRaises(WireError):
                    wire.define(doctype + body % name)
        self.assertLess(resident_mib(self.daemon.pid), 400)

    def test_absurd_sizes(self):
        self.refused("<domain type='qemu'>" + "<a>" * 10000 + "</a>" * 10000 + "</domain>")
        self.refused("<domain type='qemu'><name>" + "n" * 3000000 + "</name></domain>")
        self.refused("<domain type='qemu' " + " ".join("a%d='x'" % n for n in range(100000)) + "/>")
        with self.daemon.wire() as wire:  # over the protocol's bound on one string, and still one packet
            with self.assertRaises((WireError, EOFError, ConnectionError)):
                wire.define("<domain>" + " " * (5 << 20) + "</domain>")
        with self.daemon.wire() as wire:  # over the protocol's bound on one packet
            with self.assertRaises((EOFError, ConnectionError)):
                wire.define(b" " * (100 << 20))
        self.assertLess(resident_mib(self.daemon.pid), 400)
        self.assertTrue(self.daemon.serves())

    def test_wrong_values_are_named(self):
        good = self.nano_xml("value")
        for old, new, word in ((">8<", ">many<", "many"), (">8<", ">-8<", "-8"), ("unit='MiB'", "unit='furlongs'", "furlongs"),
                               ("<vcpu>1<", "<vcpu>none<", "none"), ("<vcpu>1<", "<vcpu>0<", "vcpu"),
                               ("machine='q35'", "machine='abacus'", "abacus"), ("arch='x86_64'", "arch='z80'", "z80"),
                               ("hvm", "uml", "uml"), (EMULATOR, "/nowhere/qemu", "/nowhere/qemu"),
                               ("serial type='file'", "serial type='drum'", "drum")):
            with self.subTest(new=new):
                self.assertIn(old, good)
                bad = good.replace(old, new, 1)
                with self.daemon.wire() as wire:
                    try:
                        domain = wire.define(bad)  # some are only found out when the guest is to start
                        wire.create(domain)
                        self.fail("accepted " + new)
                    except WireError as refused:
                        if not self.daemon.is_peer:
                            self.assertIn(word, refused.message)

    def test_names(self):
        for name in ("", "a/b", "../up", "two\nlines", ".", ".."):
            with self.subTest(name=name):
                self.refused(self.nano_xml(name))
        long = "n" * 240
        self.define(self.nano_xml("name with spaces &amp; 'quotes'", serial="<serial type='null'/>"))
        self.assertEqual(self.virsh("domstate", "name with spaces & 'quotes'"), "shut off")
        self.virsh("undefine", "name with spaces & 'quotes'")
        self.define(self.nano_xml(long))
        self.virsh("undefine", long)

    def test_virsh_shows_the_error(self):
        complaint = self.virsh_fails("define", self.write("bad.xml", "<domain type='qemu'><name>x</name>"))
        self.assertIn("error: Failed to define domain from", complaint)
        self.assertGreater(len(complaint.splitlines()[1]), 10)


class Packets(Story):
    def raw(self, data, end=False):
        """Sends bytes on a fresh, greeted connection; returns it."""
        wire = self.daemon.wire()
        self.addCleanup(wire.socket.close)
        wire.socket.sendall(data)
        if end:
            wire.socket.shutdown(1)
        return wire

    def assert_dropped(self, data):
        wire = self.raw(data)
        with self.assertRaises((EOFError, ConnectionError)):
            while True:
                wire.read()

    def assert_alive(self, wire):
        self.assertIn(b"QEMU", wire.call(PROC["CONNECT_GET_TYPE"]))

    def test_impossible_lengths(self):
        for length in (0, 1, 3, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 33554432 + 5):
            with self.subTest(length=length):
                self.assert_dropped(u32(length) + b"\0" * 64)
        self.assertTrue(self.daemon.serves())

    def test_packets_without_a_whole_header(self):
        for length in (4, 8, 27):
            with self.subTest(length=length):
                wire = self.raw(u32(length) + b"\0" * (length - 4))
                try:
                    self.assert_alive(wire)
                except (EOFError, ConnectionError, WireError):
                    pass
        self.assertTrue(self.daemon.serves())

    def test_half_a_packet_and_gone(self):
        for cut in range(1, 28):
            self.raw(packet(REMOTE, PROC["CONNECT_GET_TYPE"], serial=7)[:cut], end=True)
        self.raw(u32(33554432) + b"\0" * 1000)  # and one that never comes whole
        self.assertTrue(self.daemon.serves())

    def error_to(self, data):
        wire = self.raw(data)
        while True:
            program, procedure, kind, serial, status, payload = wire.read()
            if kind == REPLY:
                break
        self.assertEqual(status, ERROR)
        error = WireError(payload)
        self.assertEqual((error.code, error.domain), (39, 7), error.message)
        self.assert_alive(wire)
        return program, procedure, serial, error.message

    def test_unknown_programs_and_procedures(self):
        program, procedure, serial, _ = self.error_to(packet(0x12345678, 5, serial=9))
        self.assertEqual((program, procedure, serial), (0x12345678, 5, 9))
        self.error_to(packet(REMOTE, PROC["CONNECT_GET_TYPE"], serial=9, version=4711))
        for number in (9999, 0, -1, 2**31 - 1, -2**31):
            _, procedure, _, message = self.error_to(packet(REMOTE, number, serial=9))
            self.assertEqual(procedure, number)
            self.assertTrue(message.startswith("unknown procedure"), message)
        self.assertTrue(self.error_to(packet(QEMU, 99, serial=9))[3].startswith("unknown procedure"))

    def test_arguments_that_are_not_there(self):
        for procedure in (PROC["DOMAIN_DEFINE_XML"], PROC["DOMAIN_LOOKUP_BY_NAME"], PROC["DOMAIN_GET_STATE"],
                          PROC["CONNECT_LIST_ALL_DOMAINS"], PROC["DOMAIN_CREATE"]):
            for payload in (b"", b"\0", u32(0xFFFFFFFF), i32(-1) * 8, u32(0x7FFFFFFF) + b"x" * 64, u32(5 << 20)):
                with self.subTest(procedure=procedure, payload=payload):
                    if procedure == PROC["CONNECT_LIST_ALL_DOMAINS"] and len(payload) >= 8:
                        continue  # whole, if strange
                    self.error_to(packet(REMOTE, procedure, serial=3, payload=payload))

    def test_strange_but_harmless(self):
        call = packet(REMOTE, PROC["CONNECT_GET_TYPE"], serial=3, payload=b"left over bytes!")
        wire = self.raw(call)
        self.assertEqual(wire.read()[4], 0, "bytes after the arguments are ignored")
        quiet = (packet(REMOTE, PROC["CONNECT_GET_TYPE"], MESSAGE, 3) + packet(REMOTE, PROC["CONNECT_GET_TYPE"], REPLY, 3)
                 + packet(REMOTE, PROC["DOMAIN_OPEN_CONSOLE"], STREAM, 99, CONTINUE, b"data for nobody")
                 + packet(KEEPALIVE, 2, MESSAGE))
        wire = self.raw(quiet)
        self.assert_alive(wire)
        wire = self.raw(packet(KEEPALIVE, 1, MESSAGE))
        self.assertEqual(wire.read()[:3], (KEEPALIVE, 2, MESSAGE), "a ping is answered")
        self.error_to(packet(REMOTE, PROC["CONNECT_GET_TYPE"], serial=3, status=ERROR))

    def test_calls_before_the_connection_is_open(self):
        with self.daemon.wire(hello=False) as wire:
            with self.assertRaises(WireError):
                wire.call(PROC["CONNECT_LIST_ALL_DOMAINS"], u32(1) + u32(0))
            wire.call(PROC["AUTH_LIST"])
            with self.assertRaises(WireError) as caught:
                wire.call(PROC["DOMAIN_LOOKUP_BY_NAME"], string("x"))
            self.assertEqual((caught.exception.code, caught.exception.domain), (1, 7))
            with self.assertRaises(WireError) as caught:
                wire.call(PROC["CONNECT_OPEN"], optional("vbox:///system") + u32(0))
            self.assertEqual(caught.exception.code, 5)
            wire.call(PROC["CONNECT_OPEN"], optional("qemu:///system") + u32(0))
            with self.assertRaises(WireError) as caught:
                wire.call(PROC["CONNECT_OPEN"], optional("qemu:///system") + u32(0))
            self.assertEqual((caught.exception.code, caught.exception.domain), (1, 7))

    def test_a_thousand_calls_at_once(self):
        with self.daemon.wire() as wire:
            one = packet(REMOTE, PROC["CONNECT_GET_TYPE"], serial=1)
            threading.Thread(target=wire.socket.sendall, args=(one * 1000,)).start()
            self.assertEqual([wire.read()[2] for _ in range(1000)], [REPLY] * 1000)

    def test_a_client_that_asks_and_never_reads(self):
        """What it does not read is bounded, and everybody else is served."""
        wire = self.daemon.wire()
        wire.socket.setblocking(False)
        many, end = packet(REMOTE, 7, serial=1) * 100, time.monotonic() + 3  # capabilities: a long answer
        while time.monotonic() < end:
            try:
                wire.socket.send(many)
            except BlockingIOError:
                time.sleep(0.01)
            except (ConnectionError, BrokenPipeError):
                break
        self.assertTrue(self.daemon.serves())
        self.assertLess(resident_mib(self.daemon.pid), 400)
        wire.socket.close()

    def test_noise(self):
        """Random bytes with plausible lengths: whatever comes back, the daemon lives."""
        draw = random.Random(20)
        for _ in range(200):
            body = draw.randbytes(draw.randrange(24, 200))
            known = struct.pack(">III", REMOTE, 1, draw.randrange(1, 450)) if draw.random() < 0.8 else body[:12]
            wire = self.raw(u32(4 + len(body)) + known + u32(0) + u32(1) + u32(0) + body[24:], end=True)
            wire.socket.close()
        self.assertTrue(self.daemon.serves())

    def test_a_monitor_command_that_is_no_json(self):
        self.start_nano("asked")
        with self.daemon.wire() as wire:
            domain = wire.lookup("asked")
            for command in ("", "{", '{"execute":', "[]", "{}", '{"execute":5}', "\n", "{" * 5000, '{"execute":"query-status"}\n{}'):
                with self.subTest(command=command[:30]):
                    try:
                        wire.monitor(domain, command)
                    except WireError as refused:
                        self.assertTrue(refused.message)
        self.virsh("suspend", "asked")
        self.assertEqual(self.virsh("domstate", "asked"), "paused")


# A stand-in for QEMU. Asked what it can do (-machine none), it lets the real one answer.
FAKE = """#!/usr/bin/python3
import os, re, socket, sys, time
if any(a == "-machine" and b.startswith("none") for a, b in zip(sys.argv, sys.argv[1:])) or "-version" in sys.argv or "--version" in sys.argv:
    os.execv({emulator!r}, [{emulator!r}] + sys.argv[1:])
def monitor():
    for a in sys.argv:
        if a.startswith("socket,id=") and "mon" in a.split(",")[1]:
            fd = re.search(r"\\bfd=(\\d+)", a)
            if fd:
                return socket.socket(fileno=int(fd[1])).accept()[0]
            s = socket.socket(socket.AF_UNIX)
            s.bind(re.search(r"\\bpath=([^,]*)", a)[1])
            s.listen()
            return s.accept()[0]
{body}
"""


class Emulators(Story):
    def fake(self, name, body):
        path = self.write(name + ".py", FAKE.format(emulator=EMULATOR, body=body))
        os.chmod(path, 0o755)
        return path

    def fails_to_start(self, name, body, *words):
        self.define(self.nano_xml(name, emulator=self.fake(name, body)))
        complaint = self.virsh_fails("start", name)
        self.assertIn("error: Failed to start domain '%s'" % name, complaint)
        for word in words:
            self.assertIn(word, complaint)
        if not self.daemon.is_peer:
            self.assertIn(name, "\n".join(complaint.splitlines()[1:]), "the daemon's own message names the guest")
        self.assertEqual(self.virsh("domstate", name), "shut off")
        wait_until("nothing of it is left", lambda: not self.daemon.qemus(name))
        return complaint

    def test_it_exits_at_once(self):
        self.fails_to_start("quitter", "sys.stderr.write('fake: the moon is wrong\\n'); sys.exit(3)", "fake: the moon is wrong")

    def test_it_is_killed_at_once(self):
        self.fails_to_start("killed", "os.kill(os.getpid(), 9)")

    def test_its_last_words_are_shown_and_only_the_last(self):
        complaint = self.fails_to_start(
            "talker", "sys.stderr.write('word\\n' * 100000 + 'the last word\\n'); sys.exit(1)", "the last word")
        self.assertLess(len(complaint), 20000)

    def test_it_prints_garbage_on_its_monitor(self):
        self.fails_to_start("garbage", "m = monitor(); m.sendall(b'\\x00\\xffgarbage{{{\\n' * 50); time.sleep(1000)")

    def test_it_answers_with_json_that_is_no_greeting(self):
        self.fails_to_start("liar", "m = monitor(); m.sendall(b'[1, 2]\\n{\"return\": {}}\\n\"QMP\"\\n'); time.sleep(1000)")

    def test_it_prints_one_endless_line(self):
        self.only_troupe("libvirtd has no bound here")
        self.fails_to_start("endless", "m = monitor()\nwhile True: m.sendall(b'x' * 65536)")
        self.assertLess(resident_mib(self.daemon.pid), 400)

    def test_it_nests_deeply(self):
        self.fails_to_start("deep", "m = monitor(); m.sendall(b'{\"QMP\":' + b'[' * 100000 + b'\\n'); time.sleep(1000)")

    def test_it_closes_its_monitor(self):
        self.fails_to_start("closer", "m = monitor(); m.close(); sys.stderr.write('closed it\\n'); sys.exit(1)")

    def test_it_never_greets(self):
        """The start waits, everybody else is served, and destroy ends the wait."""
        for name, body in (("mute", "time.sleep(1000)"), ("silent", "m = monitor(); time.sleep(1000)")):
            self.only_troupe("libvirtd waits for its own deadline")
            self.define(self.nano_xml(name, emulator=self.fake(name, body)))
            client = subprocess.Popen(["virsh", "-c", self.daemon.uri, "start", name], env=CLEAN, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            wait_until("it was started", lambda: self.daemon.qemus(name))
            self.start_nano("beside-" + name)
            self.virsh("list", "--all")
            self.virsh("destroy", name)
            out = client.communicate()[0]
            self.assertIn("error: Failed to start domain '%s'" % name, out)
            self.assertEqual(self.virsh("domstate", name), "shut off")
            self.assertEqual(self.daemon.qemus(name), [])

    def test_it_is_no_program(self):
        path = self.write("noprogram", "not a program\n")
        os.chmod(path, 0o755)
        xml = self.nano_xml("noprogram", emulator=path)
        with self.daemon.wire() as wire, self.assertRaises(WireError) as caught:
            wire.create(wire.define(xml))
        self.assertIn("noprogram", caught.exception.message)

    def test_it_hangs_when_asked_what_it_can_do(self):
        """The probe of one emulator may hang; guests of another start meanwhile."""
        self.only_troupe("libvirtd probes before it answers")
        path = self.write("hung.sh", "#!/bin/sh\nexec sleep 1000\n")
        os.chmod(path, 0o755)
        with self.daemon.wire() as wire:
            wire.send(PROC["DOMAIN_DEFINE_XML"], string(self.nano_xml("hung", emulator=path)))
            self.start_nano("prompt")

    def test_bad_image(self):
        disk = ("<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/>"
                "<target dev='vda' bus='virtio'/></disk>")
        self.define(self.nano_xml("noimage", devices=disk % self.path("absent.qcow2")))
        self.assertIn("absent.qcow2", self.virsh_fails("start", "noimage"))
        self.write("text.qcow2", "this is no image")
        self.define(self.nano_xml("notimage", devices=disk % self.path("text.qcow2")))
        self.assertRegex(self.virsh_fails("start", "notimage"), r"(?i)not in qcow2 format")


if __name__ == "__main__":
    main()
