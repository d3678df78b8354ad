#pragma once

#include "xml/domain_values.hpp"

// Disks, and where their bytes are.

namespace troupe {

template <class V>
void describe(V& v, ref<V, storage_slice> s) {
  v.attr("type", s.type);
  v.attr("offset", s.offset);
  v.attr("size", s.size);
}

template <class V>
void describe(V& v, ref<V, reservations> r) {
  v.attr("managed", r.managed);
  v.child("source", [&] {
    v.attr("type", r.type);
    v.attr("path", r.path);
    v.attr("mode", r.mode);
  });
}

/// `<source>`; its type is an attribute of the element around it, and is known by now.
template <class V>
void describe(V& v, ref<V, storage_source> s) {
  switch (s.type) {
  case storage_type::unset:
  case storage_type::file:
    v.attr("file", s.path);
    break;
  case storage_type::block:
    v.attr("dev", s.path);
    break;
  case storage_type::dir:
    v.attr("dir", s.path);
    break;
  case storage_type::network:
    v.attr("protocol", s.protocol);
    v.attr("name", s.name);
    v.attr("query", s.query);
    v.attr("tls", s.tls);
    v.attr("tlsHostname", s.tls_hostname);
    break;
  case storage_type::volume:
    v.attr("pool", s.pool);
    v.attr("volume", s.volume);
    v.attr("mode", s.mode);
    break;
  case storage_type::nvme:
    v.attr("type", s.socket_type);
    v.attr("managed", s.managed);
    v.attr("namespace", s.nvme_namespace);
    break;
  case storage_type::vhostuser:
    v.attr("type", s.socket_type);
    v.attr("path", s.path);
    break;
  }
  v.attr("startupPolicy", s.startup);
  v.live([&] { v.attr("index", s.index); });
  v.parts("host", s.hosts);
  v.child("snapshot", [&] { v.attr("name", s.snapshot); });
  v.child("config", [&] { v.attr("file", s.config_file); });
  v.child("initiator", [&] { v.child("iqn", [&] { v.attr("name", s.initiator_iqn); }); });
  v.child("ssl", [&] { v.attr("verify", s.ssl_verify); });
  if (v.shows_secrets())
    v.child("cookies", [&] { v.parts("cookie", s.cookies); });
  v.child("readahead", [&] { v.attr("size", s.readahead); });
  v.child("timeout", [&] { v.attr("seconds", s.timeout); });
  v.part("reconnect", s.reconnect);
  if constexpr (V::reads) {
    if (s.type == storage_type::nvme)
      v.part("address", s.nvme_address, [](device_address& a) { a.type = address_type::pci; });
  } else if (s.nvme_address) {
    v.child("address", [&] { describe_pci(v, s.nvme_address->pci); });
  }
  v.child("slices", [&] { v.parts("slice", s.slices); });
  v.parts("seclabel", s.labels);
  v.part("auth", s.auth);
  v.part("encryption", s.encryption);
  v.part("reservations", s.pr);
}

template <class V>
void describe(V& v, ref<V, backing_store> b) {
  v.attr("type", b.source.type);
  v.live([&] { v.attr("index", b.index); });
  v.child("format", [&] {
    v.attr("type", b.format);
    v.child("metadata_cache", [&] { v.child("max_size", [&] { v.amount(b.metadata_cache_size, 1, 1); }); });
  });
  v.part("source", b.source);
  v.parts("backingStore", b.next);
}

template <class V>
void describe(V& v, ref<V, disk_driver> d) {
  v.attr("name", d.name);
  v.attr("type", d.type);
  v.attr("cache", d.cache);
  v.attr("error_policy", d.error_policy);
  v.attr("rerror_policy", d.rerror_policy);
  v.attr("io", d.io);
  v.attr("ioeventfd", d.ioeventfd);
  v.attr("event_idx", d.event_idx);
  v.attr("copy_on_read", d.copy_on_read);
  v.attr("discard", d.discard);
  v.attr("iothread", d.iothread);
  v.attr("detect_zeroes", d.detect_zeroes);
  v.attr("queues", d.queues);
  v.attr("queue_size", d.queue_size);
  describe(v, d.virtio);
  v.child("metadata_cache", [&] { v.child("max_size", [&] { v.amount(d.metadata_cache_size, 1, 1); }); });
}

template <class V>
void describe(V& v, ref<V, disk_geometry> g) {
  v.attr("cyls", g.cylinders);
  v.attr("heads", g.heads);
  v.attr("secs", g.sectors);
  v.attr("trans", g.translation);
}

template <class V>
void describe(V& v, ref<V, disk_blockio> b) {
  v.attr("logical_block_size", b.logical_block_size);
  v.attr("physical_block_size", b.physical_block_size);
  v.attr("discard_granularity", b.discard_granularity);
}

template <class V>
void describe(V& v, ref<V, disk_iotune> t) {
  v.leaf("total_bytes_sec", t.total_bytes_sec);
  v.leaf("read_bytes_sec", t.read_bytes_sec);
  v.leaf("write_bytes_sec", t.write_bytes_sec);
  v.leaf("total_iops_sec", t.total_iops_sec);
  v.leaf("read_iops_sec", t.read_iops_sec);
  v.leaf("write_iops_sec", t.write_iops_sec);
  v.leaf("total_bytes_sec_max", t.total_bytes_sec_max);
  v.leaf("read_bytes_sec_max", t.read_bytes_sec_max);
  v.leaf("write_bytes_sec_max", t.write_bytes_sec_max);
  v.leaf("total_iops_sec_max", t.total_iops_sec_max);
  v.leaf("read_iops_sec_max", t.read_iops_sec_max);
  v.leaf("write_iops_sec_max", t.write_iops_sec_max);
  v.leaf("size_iops_sec", t.size_iops_sec);
  v.leaf("group_name", t.group_name);
  v.leaf("total_bytes_sec_max_length", t.total_bytes_sec_max_length);
  v.leaf("read_bytes_sec_max_length", t.read_bytes_sec_max_length);
  v.leaf("write_bytes_sec_max_length", t.write_bytes_sec_max_length);
  v.leaf("total_iops_sec_max_length", t.total_iops_sec_max_length);
  v.leaf("read_iops_sec_max_length", t.read_iops_sec_max_length);
  v.leaf("write_iops_sec_max_length", t.write_iops_sec_max_length);
}

template <class V>
void describe(V& v, ref<V, disk> d) {
  v.attr("type", d.source.type);
  v.attr("device", d.device_type);
  v.attr("model", d.model);
  v.attr("rawio", d.rawio);
  v.attr("sgio", d.sgio);
  v.attr("snapshot", d.snapshot);
  v.part("driver", d.driver);
  v.part("auth", d.auth);
  v.part("source", d.source);
  v.parts("backingStore", d.backing);
  v.part("geometry", d.geometry);
  v.part("blockio", d.blockio);
  v.live([&] { v.raw("mirror", d.mirror); });
  v.child("target", [&] {
    v.attr("dev", d.target);
    v.attr("bus", d.bus);
    v.attr("tray", d.tray);
    v.attr("removable", d.removable);
    v.attr("rotation_rate", d.rotation_rate);
  });
  v.part("iotune", d.iotune);
  v.flag("readonly", d.readonly);
  v.flag("shareable", d.shareable);
  v.flag("transient", d.transient);
  v.leaf("serial", d.serial);
  v.leaf("wwn", d.wwn);
  v.leaf("vendor", d.vendor);
  v.leaf("product", d.product);
  v.part("encryption", d.encryption);
  describe_place(v, d);
}

} // namespace troupe
