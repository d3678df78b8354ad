"""What stock virsh asks beside a guest's life, and what it prints."""

import json
import os
import re
import socket
import uuid
from xml.etree import ElementTree

from troupe_story import CLEAN, EMULATOR, Events, Story, accel, main, read, run


class Connection(Story):
    def test_connect(self):
        self.assertEqual(run(["virsh", "connect", self.daemon.uri]).strip(), "")
        self.assertEqual(self.virsh("uri"), self.daemon.uri)
        self.assertEqual(self.virsh("hostname"), socket.gethostname())

    def test_version(self):
        lines = self.virsh("version", "--daemon").splitlines()
        self.assertRegex(lines[0], r"^Compiled against library: libvirt \d")
        self.assertRegex(lines[2], r"^Using API: QEMU \d+\.\d+\.\d+$")
        emulator = re.search(r"version (\d+\.\d+\.\d+)", run([EMULATOR, "--version"]))[1]
        self.assertEqual(lines[3], "Running hypervisor: QEMU " + emulator)
        self.assertRegex(lines[4], r"^Running against daemon: \d+\.\d+\.\d+$")

    def test_nodeinfo(self):
        info = dict(re.findall(r"^(.+?): +(.+)$", self.virsh("nodeinfo"), re.M))
        self.assertEqual(info["CPU model"], "x86_64")
        self.assertEqual(int(info["CPU(s)"]), os.cpu_count())
        self.assertRegex(info["Memory size"], r"^[1-9]\d+ KiB$")
        for key in ("CPU socket(s)", "Core(s) per socket", "Thread(s) per core", "NUMA cell(s)"):
            self.assertGreaterEqual(int(info[key]), 1)

    def test_capabilities(self):
        xml = self.virsh("capabilities")
        self.assertIn("<arch>x86_64</arch>", xml)
        self.assertRegex(xml, r"<host>\s*<uuid>[0-9a-f-]{36}</uuid>")
        self.assertIn("<os_type>hvm</os_type>", xml)
        self.assertIn("<emulator>%s</emulator>" % EMULATOR, xml)
        self.assertRegex(xml, r"<machine [^>]*canonical='pc-q35-[^']*'[^>]*>q35</machine>")
        self.assertIn("<domain type='qemu'", xml)
        if accel() == "kvm":
            self.assertIn("<domain type='kvm'", xml)

    def test_domain_capabilities(self):
        domain = ElementTree.fromstring(self.virsh("domcapabilities", "--machine", "q35", "--virttype", "qemu"))
        self.assertEqual(domain.findtext("path"), EMULATOR)
        self.assertTrue(domain.findtext("machine").startswith("pc-q35-"))
        modes = {mode.get("name"): mode for mode in domain.findall("cpu/mode")}
        self.assertEqual(modes["host-passthrough"].get("supported"), "no")
        self.assertEqual(modes["host-model"].get("supported"), "yes")
        named = modes["host-model"].findtext("model")
        models = {model.text: model for model in modes["custom"].findall("model")}
        self.assertIn(named, models)
        self.assertEqual((models["qemu64"].get("usable"), models["Haswell"].get("vendor")), ("yes", "Intel"))
        for arguments in (["--machine", "nosuch"], ["--virttype", "xen"], ["--arch", "nosuch"]):
            self.virsh_fails("domcapabilities", *arguments)

    def test_cpus_are_compared_and_brought_together(self):
        self.assertTrue({"qemu64", "Haswell", "EPYC"} <= set(self.virsh("cpu-models", "x86_64").split()))
        self.virsh_fails("cpu-models", "nosuch")
        host = self.write("host.xml", self.virsh("capabilities"))
        self.assertIn("is identical to host CPU", self.virsh("cpu-compare", host))
        old = self.write("old.xml", "<cpu match='exact'><model>486</model></cpu>")
        self.assertIn("superset", self.virsh("cpu-compare", old))
        self.assertIn("superset", self.virsh("hypervisor-cpu-compare", old, "--virttype", "qemu"))
        lacking = self.write("lacking.xml", "<cpu match='exact'><model>486</model><vendor>Nobody</vendor></cpu>")
        self.assertIn("Nobody", self.virsh_fails("cpu-compare", lacking, "--error"))
        unknown = self.write("unknown.xml", "<cpu><model>nosuch</model></cpu>")
        self.assertIn("nosuch", self.virsh_fails("cpu-compare", unknown))
        odd = self.write("odd.xml", "<cpu odd='1'><model>486</model></cpu>")
        self.assertIn("odd", self.virsh_fails("cpu-compare", odd, "--validate"))
        cpu = "<cpu><arch>x86_64</arch><model>%s</model><feature name='invtsc'/></cpu>"
        two = self.write("two.xml", cpu % "Haswell" + cpu % "SandyBridge")
        self.assertIn(">SandyBridge</model>", self.virsh("cpu-baseline", two))
        self.assertIn("'invtsc'", self.virsh("cpu-baseline", two))
        self.assertNotIn("'invtsc'", self.virsh("cpu-baseline", two, "--migratable"))
        self.assertIn("'sse2'", self.virsh("cpu-baseline", two, "--features"))
        self.assertIn(">486</model>", self.virsh("hypervisor-cpu-baseline", old, "--virttype", "qemu"))

    def test_a_guest_with_the_host_model_is_shown_with_its_name(self):
        self.define(self.nano_xml("named", extra="<cpu mode='host-model'/>"))
        self.assertIn("<cpu mode='host-model'", self.virsh("dumpxml", "named"))
        self.assertRegex(self.virsh("dumpxml", "named", "--update-cpu"), r"<cpu mode='custom'[^>]*>\s*<model")
        self.assertIn("<cpu mode='host-model'", self.virsh("dumpxml", "named", "--inactive"))

    def test_maxvcpus_freecell_and_other_small_questions(self):
        self.assertGreaterEqual(int(self.virsh("maxvcpus")), 1)
        self.assertRegex(self.virsh("freepages", "--all"), r"4KiB: \d+")
        self.assertRegex(self.virsh("freepages", "--cellno", "0", "--pagesize", "4"), r"4KiB: \d+")
        self.virsh_fails("freepages", "--cellno", "0", "--pagesize", "5")
        self.assertRegex(self.virsh("freecell", "--all"), r"Total: +\d+ KiB$")
        self.assertRegex(self.virsh("freecell"), r"^Total: \d+ KiB$")
        self.assertGreaterEqual(int(self.virsh("nodecpumap").split()[2]), 1)

    def test_what_is_not_there_is_refused_politely(self):
        for command in (["iface-list"], ["secret-list"]):
            try:
                self.virsh(*command)
            except Exception as failed:  # either answer is one: an empty list or "not supported"
                self.assertIn("not supported", str(failed))
        self.assertTrue(self.daemon.serves())


class Guests(Story):
    def test_lists(self):
        self.start_nano("active")
        self.define(self.nano_xml("idle"))
        number = self.virsh("domid", "active")
        table = [line.split(None, 2) for line in self.virsh("list", "--all").splitlines()]
        self.assertEqual(table[0], ["Id", "Name", "State"])
        self.assertEqual(table[2:], [[number, "active", "running"], ["-", "idle", "shut off"]])
        self.assertEqual(self.virsh("list", "--name"), "active")
        self.assertEqual(self.virsh("list", "--inactive", "--name"), "idle")
        self.assertEqual(self.virsh("list", "--all", "--name").split(), ["active", "idle"])
        self.assertEqual(self.virsh("list", "--all", "--state-shutoff", "--name"), "idle")
        self.assertEqual(self.virsh("list", "--all", "--persistent", "--name").split(), ["active", "idle"])
        self.assertEqual(self.virsh("list", "--all", "--transient", "--name"), "")
        self.assertEqual(self.virsh("list", "--uuid"), self.virsh("domuuid", "active"))
        self.virsh("autostart", "idle")
        self.assertEqual(self.virsh("list", "--all", "--autostart", "--name"), "idle")
        self.assertEqual(self.virsh("list", "--all", "--no-autostart", "--name"), "active")

    def test_a_guest_is_found_by_name_id_and_uuid(self):
        self.start_nano("found")
        number, its_uuid = self.virsh("domid", "found"), self.virsh("domuuid", "found")
        self.assertEqual(str(uuid.UUID(its_uuid)), its_uuid)
        self.assertEqual(self.virsh("domname", number), "found")
        self.assertEqual(self.virsh("domname", its_uuid), "found")
        self.assertEqual(self.virsh("domid", its_uuid), number)
        self.assertIn("failed to get domain 'nobody'", self.virsh_fails("domid", "nobody"))

    def test_dominfo(self):
        self.start_nano("known")
        info = dict(re.findall(r"^(.+?): +(.*)$", self.virsh("dominfo", "known"), re.M))
        self.assertEqual(info["Id"], self.virsh("domid", "known"))
        self.assertEqual(info["Name"], "known")
        self.assertEqual(info["UUID"], self.virsh("domuuid", "known"))
        self.assertEqual(info["OS Type"], "hvm")
        self.assertEqual(info["State"], "running")
        self.assertEqual(info["CPU(s)"], "1")
        self.assertRegex(info["CPU time"], r"^\d+\.\ds$")
        self.assertEqual(info["Max memory"], "8192 KiB")
        self.assertEqual(info["Used memory"], "8192 KiB")
        self.assertEqual(info["Persistent"], "yes")
        self.assertEqual(info["Autostart"], "disable")
        self.assertEqual(info["Managed save"], "no")
        self.assertIn("Security model", info)
        self.virsh("destroy", "known")
        info = dict(re.findall(r"^(.+?): +(.*)$", self.virsh("dominfo", "known"), re.M))
        self.assertEqual((info["Id"], info["State"]), ("-", "shut off"))

    def test_dumpxml_tells_what_runs_and_what_is_configured(self):
        self.start_nano("shown")
        live, saved = self.virsh("dumpxml", "shown"), self.virsh("dumpxml", "shown", "--inactive")
        kind = "kvm" if accel() == "kvm" else "qemu"
        self.assertRegex(live, "<domain type='%s' id='%s'[ >]" % (kind, self.virsh("domid", "shown")))
        self.assertRegex(saved, "<domain type='%s'[ >]" % kind)
        self.assertNotRegex(saved, r"<domain [^>]*\bid=")
        self.assertIn("<alias name='serial0'/>", live)
        self.assertNotIn("<alias name='serial0'/>", saved)
        for xml in (live, saved):
            self.assertIn("<uuid>%s</uuid>" % self.virsh("domuuid", "shown"), xml)
            self.assertIn("<memory unit='KiB'>8192</memory>", xml)
            self.assertIn("<emulator>%s</emulator>" % EMULATOR, xml)
            self.assertRegex(xml, r"machine='pc-q35-[^']*'")

    def test_what_dumpxml_says_can_be_defined_again(self):
        self.define(self.nano_xml("echo", extra="<description>a &lt;b&gt; &amp; 'c'</description>"))
        first = self.virsh("dumpxml", "echo")
        self.virsh("undefine", "echo")
        self.define(first)
        self.assertEqual(self.virsh("dumpxml", "echo"), first)

    def test_redefining_changes_the_next_start_only(self):
        self.start_nano("grows")
        self.define(self.virsh("dumpxml", "grows", "--inactive").replace(">8192<", ">16384<"))
        self.assertIn("<memory unit='KiB'>8192</memory>", self.virsh("dumpxml", "grows"))
        self.assertIn("<memory unit='KiB'>16384</memory>", self.virsh("dumpxml", "grows", "--inactive"))
        self.virsh("destroy", "grows")
        self.virsh("start", "grows")
        self.assertIn("<memory unit='KiB'>16384</memory>", self.virsh("dumpxml", "grows"))

    def test_a_name_belongs_to_one_uuid(self):
        self.define(self.nano_xml("unique"))
        other = self.write("other.xml", self.nano_xml("unique").replace(
            "<memory", "<uuid>6a1d24b6-6f0f-4d9c-8a0e-3f6a3f4a1a11</uuid><memory", 1))
        complaint = self.virsh_fails("define", other)
        self.assertIn("domain 'unique' already exists with uuid " + self.virsh("domuuid", "unique"), complaint)

    def test_autostart(self):
        self.define(self.nano_xml("eager"))
        self.assertEqual(self.virsh("autostart", "eager"), "Domain 'eager' marked as autostarted")
        self.assertRegex(self.virsh("dominfo", "eager"), r"Autostart: +enable")
        self.assertTrue(os.path.lexists(os.path.join(self.daemon.definitions, "autostart", "eager.xml")))
        self.assertEqual(self.virsh("autostart", "eager", "--disable"), "Domain 'eager' unmarked as autostarted")
        self.assertRegex(self.virsh("dominfo", "eager"), r"Autostart: +disable")
        self.assertFalse(os.path.lexists(os.path.join(self.daemon.definitions, "autostart", "eager.xml")))

    def test_a_definition_is_a_file_people_can_read(self):
        self.define(self.nano_xml("written"))
        file = os.path.join(self.daemon.definitions, "written.xml")
        self.assertIn("<name>written</name>", read(file))
        self.virsh("undefine", "written")
        self.assertFalse(os.path.exists(file))

    def test_edit(self):
        self.define(self.nano_xml("edited"))
        editor = dict(CLEAN, EDITOR="sed -i s/8192/12288/")
        self.assertEqual(self.virsh("edit", "edited", environment=editor), "Domain 'edited' XML configuration edited.")
        self.assertIn("<memory unit='KiB'>12288</memory>", self.virsh("dumpxml", "edited"))
        self.assertIn("not changed", self.virsh("edit", "edited", environment=dict(CLEAN, EDITOR="true")))

    def test_description_and_title(self):
        self.start_nano("named")
        self.assertEqual(self.virsh("desc", "named"), "No description for domain: named")
        self.virsh("desc", "named", "--config", "--new-desc", "what it is for")
        self.assertEqual(self.virsh("desc", "named", "--config"), "what it is for")
        self.assertEqual(self.virsh("desc", "named"), "No description for domain: named")
        self.virsh("desc", "named", "--live", "--config", "--title", "--new-desc", "A Title")
        self.assertEqual(self.virsh("desc", "named", "--title"), "A Title")
        self.assertIn("<title>A Title</title>", self.virsh("dumpxml", "named", "--inactive"))
        self.assertRegex(self.virsh("list", "--title"), r"named +running +A Title")

    def test_metadata_of_an_application(self):
        self.define(self.nano_xml("tagged"))
        self.virsh("metadata", "tagged", "--config", "--uri", "http://example.org/app", "--key", "app",
                   "--set", "<owner>me</owner>")
        self.assertEqual(self.virsh("metadata", "tagged", "--config", "--uri", "http://example.org/app"), "<owner>me</owner>")
        self.assertIn("<app:owner xmlns:app=\"http://example.org/app\">me</app:owner>", self.virsh("dumpxml", "tagged"))
        self.virsh("metadata", "tagged", "--config", "--uri", "http://example.org/app", "--remove")
        self.assertNotIn("example.org", self.virsh("dumpxml", "tagged"))

    def test_metadata_changes_are_told(self):
        self.start_nano("chatty")
        with Events(self) as events:
            self.virsh("desc", "chatty", "--live", "--config", "--new-desc", "now with words")
            events.wait("event 'metadata-change' for domain 'chatty': type description")

    def test_monitor_commands(self):
        self.start_nano("open")
        answer = json.loads(self.virsh("qemu-monitor-command", "open", '{"execute":"query-status"}'))
        self.assertEqual(answer["return"]["status"], "running")
        self.assertIn("VM status: running", self.virsh("qemu-monitor-command", "open", "--hmp", "info status"))
        answer = json.loads(self.virsh("qemu-monitor-command", "open", '{"execute":"no-such-command"}'))
        self.assertEqual(answer["error"]["class"], "CommandNotFound")
        self.assertEqual(self.virsh("domstate", "open"), "running")
        self.virsh("qemu-monitor-command", "open", "--hmp", "stop")
        self.daemon.wait_state("open", "paused")
        self.virsh("qemu-monitor-command", "open", "--hmp", "cont")
        self.daemon.wait_state("open", "running")

    def test_domstats(self):
        self.start_nano("counted")
        stats = dict(re.findall(r"^ +(\S+?)=(.*)$", self.virsh("domstats", "counted"), re.M))
        self.assertEqual(stats["state.state"], "1")
        self.assertEqual(stats["state.reason"], "1")
        self.assertGreater(int(stats["cpu.time"]), 0)
        self.assertEqual(stats["balloon.maximum"], "8192")
        self.assertEqual(stats["vcpu.current"], "1")
        self.assertEqual(stats["vcpu.maximum"], "1")

    def test_the_command_line_of_a_definition(self):
        self.define(self.nano_xml("native"))
        line = self.virsh("domxml-to-native", "qemu-argv", "--domain", "native")
        self.assertIn("-name guest=native", line)
        self.assertIn(EMULATOR, line)
        xml = self.write("native.xml", self.virsh("dumpxml", "native"))
        self.assertIn("-name guest=native", self.virsh("domxml-to-native", "qemu-argv", "--xml", xml))

    def test_a_definition_from_a_command_line(self):
        line = self.write("line.args", "%s -name old -M pc -m 64 -hda %s -net none -vnc none\n" % (EMULATOR, self.path("d")))
        xml = self.virsh("domxml-from-native", "qemu-argv", line)
        self.assertIn("<name>old</name>", xml)
        self.virsh("define", self.write("old.xml", xml))


if __name__ == "__main__":
    main()
