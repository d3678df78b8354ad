"""python3-libvirt and Sys::Virt, stock, against the daemon."""

import os
import signal
import threading
import unittest

from troupe_story import CommandFailed, Story, main, read, run, wait_until

try:
    import libvirt
except ImportError:
    libvirt = None

PERL = r"""
use strict; use warnings; use Sys::Virt; use Sys::Virt::Domain;
my ($uri, $file) = @ARGV;
my $c = Sys::Virt->new(uri => $uri);
print "type ", $c->get_type(), "\n";
local $/; open(my $f, '<', $file) or die; my $xml = <$f>;
my $d = $c->define_domain($xml);
print "defined ", $d->get_name(), "\n";
print "inactive ", join(",", map { $_->get_name() } $c->list_defined_domains()), "\n";
$d->create();
print "active ", join(",", map { $_->get_name() } $c->list_domains()), "\n";
my $info = $d->get_info();
print "running\n" if $info->{state} == Sys::Virt::Domain::STATE_RUNNING;
my $again = $c->get_domain_by_id($d->get_id());
print "same\n" if $again->get_uuid_string() eq $d->get_uuid_string();
eval { $d->create(); }; print "refused ", $@->code, "\n" if ref $@;
eval { $c->get_domain_by_name("nobody"); }; print "missing ", $@->code, "\n" if ref $@;
$d->suspend(); print "paused\n" if $d->get_info()->{state} == Sys::Virt::Domain::STATE_PAUSED;
$d->resume();
$d->destroy();
print "off\n" unless $d->is_active();
$d->undefine();
"""


@unittest.skipUnless(libvirt, "python3-libvirt is not installed")
class Python(Story):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        libvirt.registerErrorHandler(lambda *_: None, None)

    def setUp(self):
        self.connection = libvirt.open(self.daemon.uri)
        self.addCleanup(self.connection.close)

    def test_a_life(self):
        c = self.connection
        self.assertEqual(c.getType(), "QEMU")
        self.assertGreaterEqual(c.getLibVersion(), 9000000)
        domain = c.defineXML(self.nano_xml("snake"))
        self.assertEqual(c.listDefinedDomains(), ["snake"])
        self.assertEqual((c.numOfDomains(), c.numOfDefinedDomains()), (0, 1))
        domain.create()
        self.assertEqual(c.listDomainsID(), [domain.ID()])
        self.assertEqual(domain.state(), [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED])
        state, maximum, memory, cpus, time = domain.info()
        self.assertEqual((state, maximum, memory, cpus), (1, 8192, 8192, 1))
        self.assertEqual(c.lookupByUUIDString(domain.UUIDString()).name(), "snake")
        self.assertEqual(c.lookupByID(domain.ID()).name(), "snake")
        self.assertEqual((domain.isActive(), domain.isPersistent(), domain.OSType()), (1, 1, "hvm"))
        domain.suspend()
        self.assertEqual(domain.state()[0], libvirt.VIR_DOMAIN_PAUSED)
        domain.resume()
        domain.setAutostart(1)
        self.assertEqual(domain.autostart(), 1)
        domain.destroy()
        self.assertEqual(domain.state(), [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED])
        domain.undefine()

    def test_errors_have_libvirts_codes(self):
        c = self.connection
        domain = c.defineXML(self.nano_xml("wrong"))

        def code(call, *arguments):
            with self.assertRaises(libvirt.libvirtError) as caught:
                call(*arguments)
            return caught.exception.get_error_code()

        self.assertEqual(code(c.lookupByName, "nobody"), libvirt.VIR_ERR_NO_DOMAIN)
        self.assertEqual(code(c.lookupByID, 4711), libvirt.VIR_ERR_NO_DOMAIN)
        self.assertEqual(code(domain.destroy), libvirt.VIR_ERR_OPERATION_INVALID)
        self.assertEqual(code(domain.suspend), libvirt.VIR_ERR_OPERATION_INVALID)
        self.assertEqual(code(c.defineXML, "<domain"), libvirt.VIR_ERR_XML_DETAIL)
        domain.create()
        self.assertEqual(code(domain.create), libvirt.VIR_ERR_OPERATION_INVALID)

    def test_events_reach_a_callback(self):
        libvirt.virEventRegisterDefaultImpl()
        over = threading.Event()

        def turn():
            while not over.is_set():
                libvirt.virEventRunDefaultImpl()

        timer = libvirt.virEventAddTimeout(50, lambda *_: None, None)  # so that the loop looks at `over`
        thread = threading.Thread(target=turn)
        thread.start()
        self.addCleanup(libvirt.virEventRemoveTimeout, timer)
        self.addCleanup(thread.join)
        self.addCleanup(over.set)
        c = libvirt.open(self.daemon.uri)
        self.addCleanup(c.close)
        seen = []
        number = c.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                          lambda _, domain, event, detail, __: seen.append((domain.name(), event, detail)), None)
        domain = c.defineXML(self.nano_xml("heard"))
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        domain.resume()
        domain.destroy()
        domain.undefine()
        expected = [("heard", 0, 0), ("heard", 2, 0), ("heard", 3, 0), ("heard", 4, 0), ("heard", 5, 1), ("heard", 1, 0)]

        def all_came():
            rest = iter(seen)
            return all(event in rest for event in expected)

        wait_until("six events; seen %s" % seen, all_came)
        c.domainEventDeregisterAny(number)

    def test_a_fast_call_overtakes_a_slow_one_on_one_connection(self):
        """One guest's QEMU is stopped: the call that needs it waits, another on the same connection does not."""
        self.start_nano("slow")
        slow = self.connection.lookupByName("slow")
        pid = self.daemon.qemu("slow")
        os.kill(pid, signal.SIGSTOP)
        thread = threading.Thread(target=slow.suspend)
        thread.start()

        def sleeps():
            """The thread waits on its socket. Before it does, libvirt 9.0's client loses the wake-up of a second call."""
            return read("/proc/self/task/%d/stat" % thread.native_id).rpartition(")")[2].split()[0] == "S"

        def meanwhile(call):
            wait_until("the first call waits for its answer", sleeps)
            return call()

        try:
            self.assertEqual(meanwhile(self.connection.getType), "QEMU")
            found = meanwhile(lambda: self.connection.lookupByName("slow"))
            self.assertTrue(meanwhile(found.isActive))
            self.assertTrue(thread.is_alive())
        finally:
            os.kill(pid, signal.SIGCONT)
            thread.join()
        self.assertEqual(slow.state()[0], libvirt.VIR_DOMAIN_PAUSED)


class Perl(Story):
    def test_a_life(self):
        try:
            run(["perl", "-MSys::Virt", "-e1"])
        except (CommandFailed, FileNotFoundError):
            self.skipTest("Sys::Virt is not installed")
        out = run(["perl", self.write("life.pl", PERL), self.daemon.uri, self.write("pearl.xml", self.nano_xml("pearl"))])
        self.assertEqual(out.split("\n")[:-1], ["type QEMU", "defined pearl", "inactive pearl", "active pearl", "running",
                                                "same", "refused 55", "missing 42", "paused", "off"])


if __name__ == "__main__":
    main()
