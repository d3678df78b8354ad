#pragma once

#include "xml/domain_values.hpp"

// All devices but disks.

namespace troupe {

// ---- controllers

template <class V>
void describe(V& v, ref<V, controller_driver> d) {
  v.attr("queues", d.queues);
  v.attr("cmd_per_lun", d.cmd_per_lun);
  v.attr("max_sectors", d.max_sectors);
  v.attr("ioeventfd", d.ioeventfd);
  v.attr("iothread", d.iothread);
  describe(v, d.virtio);
}

template <class V>
void describe(V& v, ref<V, controller> c) {
  v.attr("type", c.type);
  v.attr("index", c.index);
  v.attr("model", c.model);
  v.attr("ports", c.ports);
  v.attr("vectors", c.vectors);
  v.attr("maxGrantFrames", c.max_grant_frames);
  v.attr("maxEventChannels", c.max_event_channels);
  v.child("model", [&] { v.attr("name", c.model_name); });
  v.child("target", [&] {
    v.attr("chassisNr", c.chassis_nr);
    v.attr("chassis", c.chassis);
    v.attr("port", c.port, hex{});
    v.attr("busNr", c.bus_nr);
    v.attr("index", c.target_index);
    v.attr("hotplug", c.hotplug);
    v.leaf("node", c.numa_node);
  });
  v.part("driver", c.driver);
  describe_place(v, c, [&] { v.child("master", [&] { v.attr("startport", c.master_startport); }); });
  v.child("pcihole64", [&] { v.amount(c.pcihole64_kib, kib_bytes, kib_bytes); });
}

// ---- character devices

/// serial, parallel, console, channel
template <class V>
void describe(V& v, ref<V, chardev> c) {
  v.attr("type", c.source.type);
  v.live([&] { v.attr("tty", c.tty); });
  describe_ends(v, c.source);
  v.child("target", [&] {
    v.attr("type", c.target_type);
    v.attr("address", c.target_address);
    v.attr("port", c.target_port);
    v.attr("name", c.target_name);
    v.live([&] { v.attr("state", c.target_state); });
    v.child("model", [&] { v.attr("name", c.target_model); });
  });
  describe_place(v, c);
}

// ---- network

template <class V>
void describe(V& v, ref<V, net_offloads> o) {
  v.attr("csum", o.csum);
  v.attr("gso", o.gso);
  v.attr("tso4", o.tso4);
  v.attr("tso6", o.tso6);
  v.attr("ecn", o.ecn);
  v.attr("ufo", o.ufo);
  v.attr("mrg_rxbuf", o.mrg_rxbuf);
}

template <class V>
void describe(V& v, ref<V, net_driver> d) {
  v.attr("name", d.name);
  v.attr("txmode", d.txmode);
  v.attr("ioeventfd", d.ioeventfd);
  v.attr("event_idx", d.event_idx);
  v.attr("queues", d.queues);
  v.attr("rx_queue_size", d.rx_queue_size);
  v.attr("tx_queue_size", d.tx_queue_size);
  v.attr("rss", d.rss);
  v.attr("rss_hash_report", d.rss_hash_report);
  describe(v, d.virtio);
  v.part("host", d.host);
  v.part("guest", d.guest);
}

template <class V>
void describe(V& v, ref<V, ip_address> i) {
  v.attr("address", i.address);
  v.attr("family", i.family);
  v.attr("prefix", i.prefix);
  v.attr("peer", i.peer);
}

template <class V>
void describe(V& v, ref<V, virtual_port> p) {
  v.attr("type", p.type);
  v.child("parameters", [&] {
    v.attr("managerid", p.manager_id, any_base{});
    v.attr("typeid", p.type_id, any_base{});
    v.attr("typeidversion", p.type_version, any_base{});
    v.attr("instanceid", p.instance_id);
    v.attr("interfaceid", p.interface_id);
    v.attr("profileid", p.profile_id);
  });
}

template <class V>
void describe(V& v, ref<V, traffic_rate> r) {
  v.attr("average", r.average, nonzero{});
  v.attr("peak", r.peak, nonzero{});
  v.attr("floor", r.floor, nonzero{});
  v.attr("burst", r.burst, nonzero{});
}

template <class V>
void describe(V& v, ref<V, traffic_rates> r) {
  v.part("inbound", r.inbound);
  v.part("outbound", r.outbound);
}

template <class V>
void describe(V& v, ref<V, vlan_tag> t) {
  v.attr("id", t.id);
  v.attr("nativeMode", t.native);
}

template <class V>
void describe(V& v, ref<V, vlan_set> s) {
  v.attr("trunk", s.trunk);
  v.parts("tag", s.tags);
}

template <class V>
void describe(V& v, ref<V, filter_parameter> p) {
  v.attr("name", p.name);
  v.attr("value", p.value);
}

template <class V>
void describe(V& v, ref<V, filter_reference> f) {
  v.attr("filter", f.filter);
  v.parts("parameter", f.parameters);
}

template <class V>
void describe(V& v, ref<V, forwarded_range> r) {
  v.attr("start", r.start);
  v.attr("end", r.end);
  v.attr("to", r.to);
  v.attr("exclude", r.exclude);
}

template <class V>
void describe(V& v, ref<V, port_forward> f) {
  v.attr("proto", f.proto);
  v.attr("address", f.address);
  v.attr("dev", f.dev);
  v.parts("range", f.ranges);
}

template <class V>
void describe(V& v, ref<V, net_teaming> t) {
  v.attr("type", t.type);
  v.attr("persistent", t.persistent);
}

template <class V>
void describe(V& v, ref<V, net_interface> n) {
  v.attr("type", n.type);
  v.attr("managed", n.managed);
  v.attr("trustGuestRxFilters", n.trust_guest_rx_filters);
  v.child("mac", [&] {
    v.attr("address", n.mac);
    v.attr("type", n.mac_type);
    v.attr("check", n.mac_check);
  });
  v.child("source", [&] {
    v.attr("network", n.network);
    v.attr("portgroup", n.portgroup);
    v.attr("bridge", n.bridge);
    v.attr("name", n.source_name);
    v.attr("dev", n.source_dev);
    v.attr("type", n.source_type);
    v.attr("path", n.source_path);
    v.attr("mode", n.source_mode);
    v.attr("address", n.source_address);
    v.attr("port", n.source_port);
    v.attr("switchid", n.switch_id);
    // A card of a network gets its port when it is plugged in.
    if (V::reads || n.type != net_type::network || !v.is_inactive())
      v.attr("portid", n.port_id);
    v.attr("portgroupid", n.portgroup_id);
    v.attr("connectionid", n.connection_id);
    v.child("local", [&] {
      v.attr("address", n.local_address);
      v.attr("port", n.local_port);
    });
    v.part("reconnect", n.reconnect);
    v.part("address", n.source_pci);
  });
  v.part("vlan", n.vlan);
  v.part("virtualport", n.virtualport);
  v.part("bandwidth", n.bandwidth);
  v.child("port", [&] { v.attr("isolated", n.port_isolated); });
  v.parts("ip", n.ips);
  v.child("script", [&] { v.attr("path", n.script); });
  v.child("downscript", [&] { v.attr("path", n.downscript); });
  v.child("target", [&] {
    // Names that we chose for a running guest's TAPs.
    if (V::reads || !v.is_inactive() || !n.target_dev.starts_with("vnet"))
      v.attr("dev", n.target_dev);
    v.attr("managed", n.target_managed);
  });
  v.child("guest", [&] {
    v.attr("dev", n.guest_dev);
    v.live([&] { v.attr("actual", n.guest_actual); });
  });
  v.child("model", [&] { v.attr("type", n.model); });
  v.part("driver", n.driver);
  v.child("backend", [&] {
    v.attr("type", n.backend_type);
    v.attr("tap", n.backend_tap);
    v.attr("vhost", n.backend_vhost);
    v.attr("logFile", n.backend_logfile);
  });
  v.parts("portForward", n.port_forwards);
  v.part("filterref", n.filterref);
  v.child("link", [&] { v.attr("state", n.link); });
  v.child("tune", [&] { v.leaf("sndbuf", n.sndbuf); });
  v.child("mtu", [&] { v.attr("size", n.mtu); });
  v.part("teaming", n.teaming);
  v.child("coalesce",
          [&] { v.child("rx", [&] { v.child("frames", [&] { v.attr("max", n.coalesce_rx_frames); }); }); });
  describe_place(v, n);
}

// ---- graphics, audio, video

template <class V>
void describe(V& v, ref<V, graphics_listen> l) {
  v.attr("type", l.type);
  v.generated("address", l.address, l.generated, "");
  v.attr("network", l.network);
  v.generated("socket", l.socket, l.generated, "");
}

template <class V>
void describe(V& v, ref<V, spice_channel> c) {
  v.attr("name", c.name);
  v.attr("mode", c.mode);
}

template <class V>
void describe(V& v, ref<V, graphics_gl> g) {
  v.attr("enable", g.enable);
  v.attr("rendernode", g.rendernode);
}

/// The old attributes that repeat what the first `<listen>` says.
template <class V>
void describe_first_listen(V& v, ref<V, graphics> g) {
  if constexpr (V::reads) {
    v.attr("socket", g.socket);
    v.attr("listen", g.listen);
  } else if (g.listens.empty()) {
    v.attr("socket", g.socket);
    v.attr("listen", g.listen);
  } else {
    const auto& first = g.listens.front();
    if (first.type == listen_type::socket && g.type == graphics_type::vnc)
      v.generated("socket", first.socket, first.generated, "");
    if (first.type == listen_type::address || (first.type == listen_type::network && !v.is_inactive()))
      v.generated("listen", first.address, first.generated, "");
  }
}

template <class V>
void describe(V& v, ref<V, graphics> g) {
  v.attr("type", g.type);
  v.attr("p2p", g.p2p);
  v.attr("address", g.dbus_address);
  v.generated("port", g.port, g.port_generated, g.type == graphics_type::vnc ? "-1" : "");
  v.generated("tlsPort", g.tls_port, g.tls_port_generated, "");
  v.attr("autoport", g.autoport);
  v.generated("websocket", g.websocket, g.websocket_generated, "-1");
  v.attr("replaceUser", g.replace_user);
  v.attr("multiUser", g.multi_user);
  describe_first_listen(v, g);
  v.attr("keymap", g.keymap);
  v.attr("defaultMode", g.default_mode);
  v.attr("sharePolicy", g.share_policy);
  v.attr("powerControl", g.power_control);
  v.secret("passwd", g.password, g.has_password);
  v.attr("passwdValidTo", g.password_valid_to);
  v.attr("connected", g.connected);
  v.attr("display", g.display);
  v.attr("xauth", g.xauth);
  v.attr("fullscreen", g.fullscreen);
  v.attr("username", g.username);
  v.parts("listen", g.listens);
  if constexpr (V::reads)
    g.has_listens = !g.listens.empty();
  v.parts("channel", g.channels);
  v.child("image", [&] { v.attr("compression", g.image_compression); });
  v.child("jpeg", [&] { v.attr("compression", g.jpeg_compression); });
  v.child("zlib", [&] { v.attr("compression", g.zlib_compression); });
  v.child("playback", [&] { v.attr("compression", g.playback_compression); });
  v.child("streaming", [&] { v.attr("mode", g.streaming); });
  v.child("mouse", [&] { v.attr("mode", g.mouse); });
  v.child("clipboard", [&] { v.attr("copypaste", g.copypaste); });
  v.child("filetransfer", [&] { v.attr("enable", g.filetransfer); });
  v.part("gl", g.gl);
  v.child("audio", [&] { v.attr("id", g.audio_id); });
}

template <class V>
void describe(V& v, ref<V, audio_stream> s) {
  v.attr("mixingEngine", s.mixing_engine);
  v.attr("fixedSettings", s.fixed_settings);
  v.attr("voices", s.voices);
  v.attr("bufferLength", s.buffer_length);
  v.attr("serverName", s.server_name);
  v.attr("clientName", s.client_name);
  v.attr("connectPorts", s.connect_ports);
  v.attr("exactName", s.exact_name);
  v.attr("dev", s.dev);
  v.attr("bufferCount", s.buffer_count);
  v.attr("tryPoll", s.try_poll);
  v.attr("name", s.name);
  v.attr("streamName", s.stream_name);
  v.attr("latency", s.latency);
  v.child("settings", [&] {
    v.attr("frequency", s.frequency);
    v.attr("channels", s.channels);
    v.attr("format", s.format);
  });
}

template <class V>
void describe(V& v, ref<V, audio> a) {
  v.attr("id", a.id);
  v.attr("type", a.type);
  v.attr("timerPeriod", a.timer_period);
  v.attr("serverName", a.server_name);
  v.attr("path", a.path);
  v.attr("driver", a.driver);
  v.attr("tryMMap", a.try_mmap);
  v.attr("exclusive", a.exclusive);
  v.attr("dspPolicy", a.dsp_policy);
  v.part("input", a.input);
  v.part("output", a.output);
}

template <class V>
void describe(V& v, ref<V, sound_codec> c) {
  v.attr("type", c.type);
}

template <class V>
void describe(V& v, ref<V, sound> s) {
  v.attr("model", s.model);
  v.attr("multichannel", s.multichannel);
  v.attr("streams", s.streams);
  v.parts("codec", s.codecs);
  v.child("audio", [&] { v.attr("id", s.audio_id); });
  describe_place(v, s);
}

template <class V>
void describe(V& v, ref<V, video_acceleration> a) {
  v.attr("accel2d", a.accel2d);
  v.attr("accel3d", a.accel3d);
  v.attr("rendernode", a.rendernode);
}

template <class V>
void describe(V& v, ref<V, video_resolution> r) {
  v.attr("x", r.x);
  v.attr("y", r.y);
}

template <class V>
void describe(V& v, ref<V, video> d) {
  v.child("driver", [&] {
    v.attr("name", d.driver_name);
    v.attr("vgaconf", d.vgaconf);
    describe(v, d.virtio);
  });
  v.child("model", [&] {
    v.attr("type", d.model);
    v.attr("ram", d.ram);
    v.attr("vram", d.vram);
    v.attr("vram64", d.vram64);
    v.attr("vgamem", d.vgamem);
    v.attr("heads", d.heads);
    v.attr("primary", d.primary);
    v.attr("blob", d.blob);
    v.part("acceleration", d.acceleration);
    v.part("resolution", d.resolution);
  });
  describe_place(v, d);
}

// ---- other devices

template <class V>
void describe(V& v, ref<V, input_device> i) {
  v.attr("type", i.type);
  v.attr("bus", i.bus);
  v.attr("model", i.model);
  describe_virtio_driver(v, i.virtio);
  v.child("source", [&] {
    v.attr("dev", i.source_dev);
    v.attr("evdev", i.source_evdev);
    v.attr("grab", i.grab);
    v.attr("grabToggle", i.grab_toggle);
    v.attr("repeat", i.repeat);
  });
  describe_place(v, i);
}

template <class V>
void describe(V& v, ref<V, memballoon> b) {
  v.attr("model", b.model);
  v.attr("autodeflate", b.autodeflate);
  v.attr("freePageReporting", b.free_page_reporting);
  v.child("stats", [&] { v.attr("period", b.stats_period); });
  describe_place(v, b);
  describe_virtio_driver(v, b.virtio);
}

template <class V>
void describe(V& v, ref<V, rng_rate> r) {
  v.attr("bytes", r.bytes);
  v.attr("period", r.period);
}

template <class V>
void describe(V& v, ref<V, rng_device> r) {
  v.attr("model", r.model);
  v.part("rate", r.rate);
  v.child("backend", [&] {
    v.attr("model", r.backend);
    v.attr("type", r.source.type);
    if (r.backend == "egd")
      describe_ends(v, r.source);
    else
      v.text(r.path);
  });
  describe_virtio_driver(v, r.virtio);
  describe_place(v, r);
}

template <class V>
void describe(V& v, ref<V, watchdog_device> w) {
  v.attr("model", w.model);
  v.attr("action", w.action);
  describe_place(v, w);
}

template <class V>
void describe(V& v, ref<V, panic_device> p) {
  v.attr("model", p.model);
  describe_place(v, p);
}

template <class V>
void describe(V& v, ref<V, tpm_device> t) {
  v.attr("model", t.model);
  v.child("backend", [&] {
    v.attr("type", t.backend);
    v.attr("version", t.version);
    v.attr("persistent_state", t.persistent_state);
    v.attr("debug", t.debug);
    v.child("device", [&] { v.attr("path", t.device_path); });
    v.child("encryption", [&] { v.attr("secret", t.secret); });
    v.child("active_pcr_banks", [&] {
      v.flag("sha1", t.sha1);
      v.flag("sha256", t.sha256);
      v.flag("sha384", t.sha384);
      v.flag("sha512", t.sha512);
    });
    v.child("source", [&] {
      v.attr("type", t.source_type);
      v.attr("mode", t.source_mode);
      v.attr("path", t.source_path);
    });
  });
  describe_place(v, t);
}

/// What on the host is handed through.
template <class V>
void describe_hostdev_source(V& v, ref<V, hostdev> h) {
  v.attr("startupPolicy", h.startup);
  v.attr("protocol", h.protocol);
  v.attr("name", h.source_name);
  v.attr("wwpn", h.wwpn);
  v.parts("host", h.hosts);
  v.child("initiator", [&] { v.child("iqn", [&] { v.attr("name", h.initiator_iqn); }); });
  v.part("auth", h.auth);
  v.child("vendor", [&] { v.attr("id", h.vendor_id); });
  v.child("product", [&] { v.attr("id", h.product_id); });
  v.child("adapter", [&] { v.attr("name", h.adapter); });
  if (h.type == "pci") {
    if constexpr (V::reads)
      v.part("address", h.source_address, [](device_address& a) { a.type = address_type::pci; });
    else if (h.source_address)
      v.child("address", [&] { describe_pci(v, h.source_address->pci); });
  } else {
    v.child("address", [&] {
      v.attr("uuid", h.mdev_uuid);
      if (h.type == "usb") {
        v.attr("bus", h.usb_bus);
        v.attr("device", h.usb_device);
      } else {
        v.attr("bus", h.scsi_bus);
        v.attr("target", h.scsi_target);
        v.attr("unit", h.scsi_unit);
      }
    });
  }
  v.leaf("block", h.block);
  v.leaf("char", h.character);
}

template <class V>
void describe(V& v, ref<V, hostdev> h) {
  v.attr("mode", h.mode);
  v.attr("type", h.type);
  v.attr("managed", h.managed);
  v.attr("sgio", h.sgio);
  v.attr("rawio", h.rawio);
  v.attr("model", h.model);
  v.attr("display", h.display);
  v.attr("ramfb", h.ramfb);
  v.child("driver", [&] { v.attr("name", h.driver_name); });
  v.child("source", [&] { describe_hostdev_source(v, h); });
  v.flag("readonly", h.readonly);
  v.flag("shareable", h.shareable);
  describe_place(v, h);
}

template <class V>
void describe(V& v, ref<V, redirdev> r) {
  v.attr("bus", r.bus);
  v.attr("type", r.source.type);
  describe_ends(v, r.source);
  describe_place(v, r);
}

template <class V>
void describe(V& v, ref<V, hub> h) {
  v.attr("type", h.type);
  describe_place(v, h);
}

template <class V>
void describe(V& v, ref<V, smartcard> s) {
  v.attr("mode", s.mode);
  v.attr("type", s.source.type);
  v.values("certificate", "", s.certificates);
  v.leaf("database", s.database);
  describe_ends(v, s.source);
  describe_place(v, s);
}

template <class V>
void describe_fs_source(V& v, ref<V, fs_device> f) {
  if constexpr (V::reads) {
    for (const char* name : {"dir", "file", "dev", "name", "socket", "usage"}) {
      if (!f.source_attribute.empty())
        break;
      v.attr(name, f.source);
      if (!f.source.empty())
        f.source_attribute = name;
    }
  } else {
    v.attr(f.source_attribute, f.source);
  }
  v.attr("pool", f.pool);
  v.attr("volume", f.volume);
  v.attr("units", f.units);
}

template <class V>
void describe(V& v, ref<V, fs_device> f) {
  v.attr("type", f.type);
  v.attr("accessmode", f.accessmode);
  v.attr("model", f.model);
  v.attr("multidevs", f.multidevs);
  v.attr("fmode", f.fmode);
  v.attr("dmode", f.dmode);
  v.child("driver", [&] {
    v.attr("type", f.driver_type);
    v.attr("format", f.driver_format);
    v.attr("wrpolicy", f.wrpolicy);
    v.attr("queue", f.queue);
    describe(v, f.virtio);
    v.attr("name", f.name);
  });
  v.child("binary", [&] {
    v.attr("path", f.binary);
    v.attr("xattr", f.binary_xattr);
    v.child("cache", [&] { v.attr("mode", f.cache_mode); });
    v.child("sandbox", [&] { v.attr("mode", f.sandbox_mode); });
    v.child("lock", [&] {
      v.attr("posix", f.lock_posix);
      v.attr("flock", f.lock_flock);
    });
    v.child("thread_pool", [&] { v.attr("size", f.thread_pool); });
  });
  v.child("source", [&] { describe_fs_source(v, f); });
  v.child("target", [&] { v.attr("dir", f.target); });
  v.flag("readonly", f.readonly);
  describe_place(v, f);
  v.child("space_hard_limit", [&] { v.amount(f.space_hard_limit, 1, 1); });
  v.child("space_soft_limit", [&] { v.amount(f.space_soft_limit, 1, 1); });
}

template <class V>
void describe(V& v, ref<V, shmem_device> s) {
  v.attr("name", s.name);
  v.attr("role", s.role);
  v.child("model", [&] { v.attr("type", s.model); });
  v.child("size", [&] { v.amount(s.size_bytes, 1, mib_bytes, "M"); });
  v.marked("server", s.has_server, [&] { v.attr("path", s.server_path); });
  v.marked("msi", s.has_msi, [&] {
    v.attr("vectors", s.msi_vectors);
    v.attr("ioeventfd", s.msi_ioeventfd);
  });
  describe_place(v, s);
}

template <class V>
void describe(V& v, ref<V, memory_device> m) {
  v.attr("model", m.model);
  v.attr("access", m.access);
  v.attr("discard", m.discard);
  v.leaf("uuid", m.uuid);
  v.child("source", [&] {
    v.leaf("nodemask", m.node_mask);
    v.child("pagesize", [&] { v.amount(m.page_kib, kib_bytes, kib_bytes); });
    v.leaf("path", m.path);
    v.child("alignsize", [&] { v.amount(m.align_kib, kib_bytes, kib_bytes); });
    v.flag("pmem", m.pmem);
  });
  v.child("target", [&] {
    v.child("size", [&] { v.amount(m.size_kib, kib_bytes, kib_bytes); });
    v.leaf("node", m.node);
    v.child("label", [&] { v.child("size", [&] { v.amount(m.label_kib, kib_bytes, kib_bytes); }); });
    v.flag("readonly", m.readonly);
    v.child("block", [&] { v.amount(m.block_kib, kib_bytes, kib_bytes); });
    v.child("requested", [&] { v.amount(m.requested_kib, kib_bytes, kib_bytes); });
    v.live([&] { v.child("current", [&] { v.amount(m.current_kib, kib_bytes, kib_bytes); }); });
    v.child("address", [&] { v.attr("base", m.base, hex{}); });
  });
  describe_place(v, m);
}

template <class V>
void describe(V& v, ref<V, nvram_device> n) {
  describe_place(v, n);
}

template <class V>
void describe(V& v, ref<V, usb_rule> r) {
  v.attr("class", r.class_id);
  v.attr("vendor", r.vendor);
  v.attr("product", r.product);
  v.attr("version", r.version);
  v.attr("allow", r.allow);
}

template <class V>
void describe(V& v, ref<V, usb_filter> f) {
  v.parts("usbdev", f.rules);
}

template <class V>
void describe(V& v, ref<V, iommu_device> i) {
  v.attr("model", i.model);
  v.marked("driver", i.has_driver, [&] {
    v.attr("intremap", i.intremap);
    v.attr("caching_mode", i.caching_mode);
    v.attr("eim", i.eim);
    v.attr("iotlb", i.iotlb);
    v.attr("aw_bits", i.aw_bits);
  });
  describe_place(v, i);
}

template <class V>
void describe(V& v, ref<V, vsock_device> s) {
  v.attr("model", s.model);
  v.child("cid", [&] {
    v.attr("auto", s.auto_cid);
    v.attr("address", s.cid);
  });
  describe_place(v, s);
  describe_virtio_driver(v, s.virtio);
}

template <class V>
void describe(V& v, ref<V, crypto_device> c) {
  v.attr("model", c.model);
  v.attr("type", c.type);
  v.child("backend", [&] {
    v.attr("model", c.backend);
    v.attr("queues", c.queues);
  });
  describe_virtio_driver(v, c.virtio);
  describe_place(v, c);
}

template <class V>
void describe(V& v, ref<V, lease> l) {
  v.leaf("lockspace", l.lockspace);
  v.leaf("key", l.key);
  v.child("target", [&] {
    v.attr("path", l.target_path);
    v.attr("offset", l.offset);
  });
}

template <class V>
void describe(V& v, ref<V, device_list> d) {
  const auto is = [](chardev_kind kind) { return [kind](chardev& c) { c.kind = kind; }; };
  v.leaf("emulator", d.emulator);
  v.parts("disk", d.disks);
  v.parts("controller", d.controllers);
  v.parts("lease", d.leases);
  v.parts("filesystem", d.filesystems);
  v.parts("interface", d.interfaces);
  v.parts("smartcard", d.smartcards);
  v.parts("serial", d.serials, is(chardev_kind::serial));
  v.parts("parallel", d.parallels, is(chardev_kind::parallel));
  v.parts("console", d.consoles, is(chardev_kind::console));
  v.parts("channel", d.channels, is(chardev_kind::channel));
  v.parts("input", d.inputs);
  v.parts("tpm", d.tpms);
  v.parts("graphics", d.graphics);
  v.parts("sound", d.sounds);
  v.parts("audio", d.audios);
  v.parts("video", d.videos);
  v.parts("hostdev", d.hostdevs);
  v.parts("redirdev", d.redirdevs);
  v.part("redirfilter", d.redirfilter);
  v.parts("hub", d.hubs);
  v.parts("watchdog", d.watchdogs);
  v.parts("memballoon", d.balloons);
  v.parts("rng", d.rngs);
  v.parts("nvram", d.nvram);
  v.parts("panic", d.panics);
  v.parts("shmem", d.shmems);
  v.parts("memory", d.memories);
  v.parts("crypto", d.cryptos);
  v.parts("iommu", d.iommus);
  v.parts("vsock", d.vsocks);
}

} // namespace troupe
