#include "xml/argv_parts.hpp"
#include "xml/argv_tables.hpp"

#include <algorithm>
#include <fmt/format.h>

// Displays, video cards, sound and what it is played on.

namespace troupe {
namespace {

// ---- audio backends

void put_stream(ordered_json& out, const char* key, const std::optional<audio_stream>& from) {
  if (!from)
    return;
  ordered_json stream = ordered_json::object();
  each_audio_setting(*from, [&](const char* property, const auto& field) { put(stream, property, field); });
  if (!stream.empty())
    out[key] = stream;
}

std::string audio_id(const argv_builder& b, maybe_number wanted) {
  if (!wanted && b.guest.devices.audios.empty())
    return {};
  const auto first = b.guest.devices.audios.empty() ? 1 : b.guest.devices.audios.front().id.value_or(1);
  return fmt::format("audio{}", wanted.value_or(first));
}

// ---- displays

constexpr int first_display_port = 5900;

/// The port that is now known, or what domxml-to-native shows for one that is chosen at start.
int port_or(const argv_builder& b, const graphics& g, const std::optional<int>& port, int shown) {
  if (port && *port > 0)
    return *port;
  if (!b.run.generic_taps)
    b.refuse(fmt::format("the {} display got no port; this is a fault of the daemon", word_of(g.type)));
  return shown;
}

const graphics_listen* first_listen(const graphics& g) {
  return g.listens.empty() ? nullptr : &g.listens.front();
}

std::string listen_address(const graphics& g) {
  const auto* listen = first_listen(g);
  const auto& address = listen && !listen->address.empty() ? listen->address : g.listen;
  return address.empty() ? "127.0.0.1" : address;
}

bool listens_nowhere(const graphics& g) {
  return first_listen(g) && first_listen(g)->type == listen_type::none;
}
bool listens_on_socket(const graphics& g) {
  return !g.socket.empty() || (first_listen(g) && first_listen(g)->type == listen_type::socket);
}

std::string listen_socket(const argv_builder& b, const graphics& g) {
  const auto* listen = first_listen(g);
  if (listen && !listen->socket.empty())
    return listen->socket;
  return g.socket.empty() ? fmt::format("{}/{}.sock", b.run.run_dir, word_of(g.type)) : g.socket;
}

void add_keymap(argv_builder& b, const graphics& g) {
  if (!g.keymap.empty())
    b.option("-k", g.keymap);
}

void check_display(const argv_builder& b, const graphics& g) {
  const auto same = std::ranges::count(b.guest.devices.graphics, g.type, &graphics::type);
  if (same > 1)
    b.refuse(fmt::format("only 1 graphics device of each type (sdl, vnc, spice, headless, dbus) is supported; of type "
                         "'{}' there are {}",
                         word_of(g.type), same));
  if (g.listens.size() > 1)
    b.refuse(fmt::format("QEMU does not support multiple listens for one graphics device: that of type '{}' has {}",
                         word_of(g.type), g.listens.size()));
}

void add_vnc(argv_builder& b, const graphics& g) {
  std::string out;
  if (listens_nowhere(g)) {
    out = "none";
  } else if (listens_on_socket(g)) {
    out = "vnc=unix:" + escaped(listen_socket(b, g));
  } else {
    const auto address = listen_address(g);
    const bool chosen = g.autoport != yes_no::no || g.port.value_or(0) > 0;
    const auto port = chosen ? port_or(b, g, g.port, first_display_port) : g.port.value_or(0);
    if (port < first_display_port || port > 65535)
      b.refuse(fmt::format("vnc port must be in range [5900,65535]; it is {}", port));
    out = fmt::format("{}:{}",
                      address.find(':') == std::string::npos ? escaped(address) : fmt::format("[{}]", escaped(address)),
                      port - first_display_port);
    if (g.websocket)
      out += fmt::format(",websocket={}", *g.websocket);
  }
  if (!g.share_policy.empty())
    out += ",share=" + g.share_policy;
  if (g.has_password || !g.password.empty())
    out += ",password=on";
  if (g.power_control != yes_no::unset)
    out += fmt::format(",power-control={}", g.power_control == yes_no::yes ? "on" : "off");
  if (const auto audio = audio_id(b, g.audio_id); !audio.empty())
    out += ",audiodev=" + audio;
  b.option("-vnc", out);
  add_keymap(b, g);
}

void add_spice_place(const argv_builder& b, const graphics& g, std::string& out) {
  if (listens_on_socket(g)) {
    out = "unix,addr=" + escaped(listen_socket(b, g));
    return;
  }
  const bool choose = g.autoport == yes_no::yes || (g.port && *g.port == -1);
  const bool has_port = !listens_nowhere(g) && ((g.port && *g.port > 0) || choose);
  out = fmt::format("port={}", has_port ? port_or(b, g, g.port, 5901) : 0);
  if (g.tls_port.value_or(0) > 0)
    b.refuse(fmt::format("the spice display wants tlsPort {}, and TLS is not set up for SPICE; leave tlsPort out",
                         *g.tls_port));
  if (has_port)
    out += ",addr=" + escaped(listen_address(g));
}

void add_spice(argv_builder& b, const graphics& g) {
  std::string out;
  add_spice_place(b, g, out);
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!value.empty())
      out += fmt::format(",{}={}", name, value);
  };
  if (g.mouse == "server")
    add("agent-mouse", "off");
  else if (g.mouse == "client")
    add("agent-mouse", "on");
  if (!g.has_password && g.password.empty())
    add("disable-ticketing", "on");
  if (g.default_mode == "secure")
    add("tls-channel", "default");
  else if (g.default_mode == "insecure")
    add("plaintext-channel", "default");
  for (const auto& channel : g.channels) {
    if (channel.mode == "secure")
      add("tls-channel", channel.name);
    else if (channel.mode == "insecure")
      add("plaintext-channel", channel.name);
  }
  add("image-compression", g.image_compression);
  add("jpeg-wan-compression", g.jpeg_compression);
  add("zlib-glz-wan-compression", g.zlib_compression);
  add("playback-compression", word_of(g.playback_compression));
  add("streaming-video", g.streaming);
  if (g.copypaste == yes_no::no)
    add("disable-copy-paste", "on");
  if (g.filetransfer == yes_no::no)
    add("disable-agent-file-xfer", "on");
  if (g.gl && g.gl->enable == yes_no::yes) {
    add("gl", "on");
    add("rendernode", escaped(g.gl->rendernode));
  }
  add("seamless-migration", "on");
  b.option("-spice", out);
  add_keymap(b, g);
}

void add_sdl(argv_builder& b, const graphics& g) {
  if (!g.xauth.empty())
    b.line.env.push_back("XAUTHORITY=" + g.xauth);
  if (!g.display.empty())
    b.line.env.push_back("DISPLAY=" + g.display);
  if (g.fullscreen == yes_no::yes)
    b.word("-full-screen");
  std::string out = "sdl";
  if (g.gl && g.gl->enable != yes_no::unset)
    out += g.gl->enable == yes_no::yes ? ",gl=on" : ",gl=off";
  b.option("-display", out);
}

void add_dbus(argv_builder& b, const graphics& g) {
  std::string out = "dbus";
  if (g.p2p == yes_no::yes)
    out += ",p2p=on";
  else if (!g.dbus_address.empty())
    out += ",addr=" + escaped(g.dbus_address);
  else {
    b.refuse_to_run("the dbus display names no bus, and none is started here; add address='unix:path=…' or p2p='yes'");
    out += fmt::format(",addr=unix:path=/run/libvirt/qemu/dbus/{}-dbus.sock", escaped(b.short_name()));
  }
  if (g.gl && g.gl->enable != yes_no::unset) {
    out += g.gl->enable == yes_no::yes ? ",gl=on" : ",gl=off";
    if (g.gl->enable == yes_no::yes && !g.gl->rendernode.empty())
      out += ",rendernode=" + escaped(g.gl->rendernode);
  }
  if (g.audio_id)
    out += fmt::format(",audiodev=audio{}", *g.audio_id);
  b.option("-display", out);
}

// ---- video

std::string video_type(const argv_builder& b, const video& v, bool primary) {
  const auto& model = v.model;
  if (model == "vga")
    return "VGA";
  if (model == "cirrus")
    return "cirrus-vga";
  if (model == "vmvga")
    return "vmware-svga";
  if (model == "bochs")
    return "bochs-display";
  if (model == "ramfb")
    return "ramfb";
  if (model == "qxl")
    return primary ? "qxl-vga" : "qxl";
  if (model == "virtio") {
    const bool vhost = v.driver_name == "vhostuser";
    const std::string_view gl =
      v.acceleration && v.acceleration->accel3d == yes_no::yes && b.has("virtio-vga-gl") ? "-gl" : "";
    if (primary)
      return vhost ? "vhost-user-vga" : fmt::format("virtio-vga{}", gl);
    return vhost ? "vhost-user-gpu-pci" : virtio_type(fmt::format("virtio-gpu{}", gl), v.address, {});
  }
  b.refuse(fmt::format(
    "video card '{}' of model '{}': QEMU does not have it; use vga, virtio, qxl, cirrus, bochs, vmvga or ramfb",
    v.alias, model));
}

void add_video(argv_builder& b, const video& v, bool primary) {
  const auto type = video_type(b, v, primary);
  ordered_json out{{"driver", type}};
  put_virtio(out, v.virtio);
  out["id"] = v.alias;
  if (v.driver_name == "vhostuser")
    b.refuse_to_run(fmt::format(
      "video card '{}': vhost-user-gpu is not started here; leave <driver name='vhostuser'/> out", v.alias));
  if (v.model == "qxl" || v.model == "virtio")
    put(out, "max_outputs", v.heads);
  const auto mib = [](maybe_number size_kib) { return size_kib.value_or(0) / 1024; };
  if (v.model == "qxl") {
    out["ram_size"] = std::uint64_t{v.ram.value_or(0)} * 1024;
    out["vram_size"] = std::uint64_t{v.vram.value_or(0)} * 1024;
    out["vram64_size_mb"] = mib(v.vram64);
    out["vgamem_mb"] = mib(v.vgamem);
  } else if (v.model == "virtio") {
    put(out, "blob", v.blob);
  } else if ((v.model == "vga" || v.model == "vmvga") && v.vram) {
    out["vgamem_mb"] = mib(v.vram);
  } else if (v.model == "bochs" && v.vram) {
    out["vgamem"] = std::uint64_t{*v.vram} * 1024;
  }
  if (v.resolution) {
    put(out, "xres", v.resolution->x);
    put(out, "yres", v.resolution->y);
  }
  if (v.model != "ramfb")
    put_address(out, b, v);
  b.device(out);
}

// ---- sound cards

std::string_view codec_type(std::string_view codec) {
  return codec == "micro" ? "hda-micro" : codec == "output" ? "hda-output" : "hda-duplex";
}

void add_codecs(argv_builder& b, const sound& s, const std::string& audio) {
  auto codecs = s.codecs;
  if (codecs.empty())
    codecs.emplace_back();
  for (std::size_t i = 0; i < codecs.size(); ++i) {
    ordered_json out{{"driver", codec_type(codecs[i].type)},
                     {"id", fmt::format("{}-codec{}", s.alias, i)},
                     {"bus", s.alias + ".0"},
                     {"cad", i}};
    put(out, "audiodev", audio);
    b.device(out);
  }
}

void add_sound(argv_builder& b, const sound& s) {
  const auto audio = audio_id(b, s.audio_id);
  if (s.model == "pcspk") {
    if (b.run.generic_taps) // a start sets the machine's own speaker instead: QEMU 7.1 has lost this option
      b.option("-soundhw", "pcspk");
    return;
  }
  const auto row = std::ranges::find(sound_rows, s.model, &sound_row::model);
  if (row == std::end(sound_rows))
    b.refuse(
      fmt::format("sound card '{}' of model '{}': QEMU does not have it; use ich9, ich6, ac97, es1370, sb16 or usb",
                  s.alias, s.model));
  ordered_json out{{"driver", row->type}, {"id", s.alias}};
  if (!row->codecs)
    put(out, "audiodev", audio);
  put(out, "multi", s.multichannel);
  put_address(out, b, s);
  b.device(out);
  if (row->codecs)
    add_codecs(b, s, audio);
}

} // namespace

void add_audios(argv_builder& b) {
  for (const auto& audio : b.guest.devices.audios) {
    const auto row = std::ranges::find(audio_rows, audio.type, &audio_row::type);
    if (row == std::end(audio_rows))
      b.refuse(fmt::format(
        "<audio type='{}'>: QEMU does not have it; use none, spice, pulseaudio, alsa, oss, jack, sdl, file or dbus",
        audio.type));
    ordered_json out{{"id", fmt::format("audio{}", audio.id.value_or(1))}, {"driver", row->driver}};
    put(out, "timer-period", audio.timer_period);
    put(out, "path", audio.path);
    put(out, "server", audio.server_name);
    put(out, "try-mmap", audio.try_mmap);
    put(out, "exclusive", audio.exclusive);
    put(out, "dsp-policy", audio.dsp_policy);
    put_stream(out, "in", audio.input);
    put_stream(out, "out", audio.output);
    b.option("-audiodev", to_text(out));
  }
}

void add_graphics(argv_builder& b) {
  for (const auto& g : b.guest.devices.graphics) {
    check_display(b, g);
    switch (g.type) {
    case graphics_type::vnc:
      add_vnc(b, g);
      break;
    case graphics_type::spice:
      add_spice(b, g);
      break;
    case graphics_type::sdl:
      add_sdl(b, g);
      break;
    case graphics_type::egl_headless:
      b.option("-display", g.gl && !g.gl->rendernode.empty() ? "egl-headless,rendernode=" + escaped(g.gl->rendernode)
                                                             : "egl-headless");
      break;
    case graphics_type::dbus:
      add_dbus(b, g);
      break;
    default:
      b.refuse(fmt::format("<graphics type='{}'>: QEMU does not have it; use vnc, spice, sdl, egl-headless or dbus",
                           word_of(g.type)));
    }
  }
}

void add_videos(argv_builder& b) {
  bool primary = true;
  for (const auto& v : b.guest.devices.videos) {
    if (v.model != "none")
      add_video(b, v, primary);
    primary = false;
  }
}

void add_sounds(argv_builder& b) {
  for (const auto& s : b.guest.devices.sounds)
    add_sound(b, s);
}

} // namespace troupe
