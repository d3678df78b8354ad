"""libvirt's RPC protocol, spoken directly: for what stock clients would not send, and for measuring without them."""

import socket
import struct
import uuid

REMOTE, QEMU, KEEPALIVE = 0x20008086, 0x20008087, 0x6B656570
CALL, REPLY, MESSAGE, STREAM = 0, 1, 2, 3
OK, ERROR, CONTINUE = 0, 1, 2

# Procedures of the remote program, named as libvirt names them.
PROC = dict(
    CONNECT_OPEN=1, CONNECT_CLOSE=2, CONNECT_GET_TYPE=3, CONNECT_GET_VERSION=4, DOMAIN_CREATE=9, DOMAIN_CREATE_XML=10,
    DOMAIN_DEFINE_XML=11, DOMAIN_DESTROY=12, DOMAIN_GET_XML_DESC=14, DOMAIN_LOOKUP_BY_NAME=23, DOMAIN_REBOOT=27,
    DOMAIN_RESUME=28, DOMAIN_SET_AUTOSTART=29, DOMAIN_SHUTDOWN=33, DOMAIN_SUSPEND=34, DOMAIN_UNDEFINE=35,
    CONNECT_GET_HOSTNAME=59, CONNECT_SUPPORTS_FEATURE=60, AUTH_LIST=66, DOMAIN_CREATE_WITH_FLAGS=196,
    DOMAIN_OPEN_CONSOLE=201, DOMAIN_GET_STATE=212, DOMAIN_UNDEFINE_FLAGS=231, DOMAIN_DESTROY_FLAGS=234,
    DOMAIN_RESET=245, DOMAIN_SHUTDOWN_FLAGS=258, DOMAIN_SET_METADATA=264, CONNECT_LIST_ALL_DOMAINS=273,
    CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY=316, DOMAIN_EVENT_CALLBACK_LIFECYCLE=318, DOMAIN_DEFINE_XML_FLAGS=350)


def u32(value):
    return struct.pack(">I", value)


def i32(value):
    return struct.pack(">i", value)


def string(text):
    raw = text.encode() if isinstance(text, str) else text
    return u32(len(raw)) + raw + b"\0" * (-len(raw) % 4)


def optional(text):
    return u32(0) if text is None else u32(1) + string(text)


class Domain:
    """A domain reference as the wire carries it."""

    def __init__(self, name, raw_uuid, number=-1):
        self.name, self.uuid, self.id = name, raw_uuid, number

    def pack(self):
        return string(self.name) + self.uuid + i32(self.id)

    def __repr__(self):
        return "%s (%s, id %d)" % (self.name, uuid.UUID(bytes=self.uuid), self.id)


class Reader:
    """Takes values off a payload, in order."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("payload ends early")
        self.at += count
        return self.data[self.at - count:self.at]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def string(self):
        size = self.u32()
        text = self.take(size).decode(errors="replace")
        self.take(-size % 4)
        return text

    def optional(self):
        return self.string() if self.u32() else None

    def domain(self):
        return Domain(self.string(), self.take(16), self.i32())


class WireError(Exception):
    """An error reply: libvirt's code, error domain and message."""

    def __init__(self, payload):
        reader = Reader(payload)
        self.code, self.domain, self.message = reader.i32(), reader.i32(), reader.optional()
        super().__init__("error %d of domain %d: %s" % (self.code, self.domain, self.message))


def packet(program, procedure, kind=CALL, serial=0, status=OK, payload=b"", version=1):
    return struct.pack(">IIIiIII", 28 + len(payload), program, version, procedure, kind, serial, status) + payload


class Wire:
    """One connection. `path` is a unix socket; with `hello` the connection is opened as a client would."""

    def __init__(self, path, hello=True, flags=0, timeout=30):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.serial, self.buffer, self.messages = 0, b"", []
        try:
            self.socket.connect(path)
            if hello:
                self.call(PROC["AUTH_LIST"])
                self.call(PROC["CONNECT_OPEN"], optional("qemu:///system") + u32(flags))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _fill(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                raise EOFError("the daemon closed the connection")
            self.buffer += more

    def read(self):
        """The next packet: (program, procedure, kind, serial, status, payload)."""
        self._fill(4)
        size = struct.unpack_from(">I", self.buffer)[0]
        self._fill(size)
        _, program, _, procedure, kind, serial, status = struct.unpack_from(">IIIiIII", self.buffer)
        payload, self.buffer = self.buffer[28:size], self.buffer[size:]
        return program, procedure, kind, serial, status, payload

    def send(self, procedure, payload=b"", program=REMOTE):
        """Sends a call and does not wait; returns its serial."""
        self.serial += 1
        self.socket.sendall(packet(program, procedure, CALL, self.serial, OK, payload))
        return self.serial

    def answer(self, serial):
        """Waits for the reply to `serial`; messages on the way are kept in `messages`."""
        while True:
            _, procedure, kind, number, status, payload = self.read()
            if kind == MESSAGE:
                self.messages.append((procedure, payload))
            elif kind == REPLY and number == serial:
                if status == ERROR:
                    raise WireError(payload)
                return payload

    def call(self, procedure, payload=b"", program=REMOTE):
        return self.answer(self.send(procedure, payload, program))

    def message(self):
        """The next event: (procedure, payload)."""
        while not self.messages:
            _, procedure, kind, _, _, payload = self.read()
            if kind == MESSAGE:
                self.messages.append((procedure, payload))
        return self.messages.pop(0)

    # What the tests and the benchmark use most.

    def define(self, xml):
        return Reader(self.call(PROC["DOMAIN_DEFINE_XML"], string(xml))).domain()

    def lookup(self, name):
        return Reader(self.call(PROC["DOMAIN_LOOKUP_BY_NAME"], string(name))).domain()

    def state(self, domain):
        reader = Reader(self.call(PROC["DOMAIN_GET_STATE"], domain.pack() + u32(0)))
        return reader.i32(), reader.i32()

    def create(self, domain, flags=0):
        return Reader(self.call(PROC["DOMAIN_CREATE_WITH_FLAGS"], domain.pack() + u32(flags))).domain()

    def destroy(self, domain):
        self.call(PROC["DOMAIN_DESTROY"], domain.pack())

    def undefine(self, domain):
        self.call(PROC["DOMAIN_UNDEFINE_FLAGS"], domain.pack() + u32(0))

    def list(self, flags=0):
        reader = Reader(self.call(PROC["CONNECT_LIST_ALL_DOMAINS"], u32(1) + u32(flags)))
        return [reader.domain() for _ in range(reader.u32())]

    def monitor(self, domain, command, flags=0):
        return Reader(self.call(1, domain.pack() + string(command) + u32(flags), QEMU)).string()

    def watch_lifecycle(self):
        return Reader(self.call(PROC["CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY"], i32(0) + u32(0))).i32()
