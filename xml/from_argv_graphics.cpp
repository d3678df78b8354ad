#include "xml/argv_tables.hpp"
#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

// Displays, video cards, sound and what it is played on.

namespace troupe {
namespace {

constexpr int first_display_port = 5900;

void listen_on_socket(graphics& g, const std::string& path) {
  auto& listen = g.listens.emplace_back();
  listen.type = listen_type::socket;
  if (!is_run_path(path))
    listen.socket = path;
}

void listen_at(graphics& g, std::string address) {
  auto& listen = g.listens.emplace_back();
  listen.type = listen_type::address;
  listen.address = address;
  g.listen = std::move(address);
}

} // namespace

void read_vnc(argv_import& in, line_option& option) {
  in.has_display = true;
  auto& props = option.props;
  graphics g;
  g.type = graphics_type::vnc;
  const auto went = in.attempt(option, [&] {
    const auto* place = props.take("display");
    const auto* old = props.take("vnc"); // "vnc=unix:PATH", as libvirt writes it
    if (place == nullptr)
      place = old;
    if (place == nullptr)
      in.refuse(option, "it says no place: HOST:DISPLAY, unix:PATH and none are accepted");
    if (*place == "none") {
      g.listens.emplace_back().type = listen_type::none;
    } else if (place->starts_with("unix:")) {
      listen_on_socket(g, place->substr(5));
    } else {
      const auto colon = place->find_last_of(':');
      const auto display =
        colon == std::string::npos ? std::nullopt : number_of(std::string_view{*place}.substr(colon + 1));
      if (!display || *display > 65'535u - first_display_port + 65'536u)
        in.refuse(option, fmt::format("'{}' is no place: HOST:DISPLAY, unix:PATH and none are accepted", *place));
      auto host = place->substr(0, colon);
      if (host.starts_with('[') && host.ends_with(']'))
        host = host.substr(1, host.size() - 2);
      // Displays beyond the last port were possible once, and counted round.
      g.port = static_cast<int>((*display + first_display_port) & 0xffff);
      if (*g.port == 0)
        g.port = first_display_port;
      g.autoport = yes_no::no;
      listen_at(g, host.empty() ? "0.0.0.0" : host);
    }
    if (const auto* websocket = props.take("websocket")) {
      int port = -1;
      if (*websocket != "on" && !parse_number(*websocket, port, 10))
        in.refuse_value(option, "websocket", "on or a port");
      g.websocket = port;
    }
    in.read(option, "share", g.share_policy);
    if (in.flag(option, "password") == true) {
      in.note(option, "the password is not on the command line: set it with <graphics passwd='…'>");
      if (in.is_libvirts)
        g.has_password = true;
    }
    in.read(option, "power-control", g.power_control);
    if (const auto* audio = props.take("audiodev"))
      g.audio_id = in.audio_wish(*audio);
    in.leave_out(
      option,
      "TLS and SASL of displays are set for all guests in the settings, anything else has no words in domain XML");
    return true;
  });
  if (!went)
    return;
  in.guest.devices.graphics.push_back(std::move(g));
}

void read_spice(argv_import& in, line_option& option) {
  in.has_display = true;
  in.attempt(option, [&] {
    auto& props = option.props;
    graphics g;
    g.type = graphics_type::spice;
    const bool socket = in.flag(option, "unix").value_or(false);
    const auto port = in.number(option, "port");
    std::string address;
    in.read(option, "addr", address);
    if (port.value_or(0) > 65'535)
      in.refuse_value(option, "port", "a number from 0 to 65535");
    if (socket) {
      listen_on_socket(g, address);
    } else if (port.value_or(0) == 0 && !props.has("tls-port")) {
      g.listens.emplace_back().type = listen_type::none;
    } else {
      g.port = static_cast<int>(port.value_or(0));
      g.autoport = yes_no::no;
      listen_at(g, address.empty() ? "0.0.0.0" : address);
    }
    if (const auto tls = in.number(option, "tls-port"))
      g.tls_port = static_cast<int>(std::min<std::uint64_t>(*tls, 65'535));
    if (const auto agent = in.flag(option, "agent-mouse"))
      g.mouse = *agent ? "client" : "server";
    const bool open = in.flag(option, "disable-ticketing").value_or(false);
    std::string password;
    in.read(option, "password", password);
    if (!password.empty()) {
      g.has_password = true;
      g.password = password;
    } else if (!open) {
      g.has_password = in.is_libvirts;
      in.note(option, "the ticket is not on the command line: set it with <graphics passwd='…'>");
    }
    for (const auto& [key, mode] : {std::pair{"tls-channel", "secure"}, std::pair{"plaintext-channel", "insecure"}})
      for (const auto& name : props.take_all(key)) {
        if (name == "default") {
          g.default_mode = mode;
          continue;
        }
        auto& channel = g.channels.emplace_back();
        channel.name = name;
        channel.mode = mode;
      }
    in.read(option, "image-compression", g.image_compression);
    in.read(option, "jpeg-wan-compression", g.jpeg_compression);
    in.read(option, "zlib-glz-wan-compression", g.zlib_compression);
    in.read(option, "playback-compression", g.playback_compression);
    in.read(option, "streaming-video", g.streaming);
    if (in.flag(option, "disable-copy-paste") == true)
      g.copypaste = yes_no::no;
    if (in.flag(option, "disable-agent-file-xfer") == true)
      g.filetransfer = yes_no::no;
    if (in.flag(option, "gl") == true) {
      g.gl.emplace().enable = yes_no::yes;
      in.read(option, "rendernode", g.gl->rendernode);
    }
    props.drop("seamless-migration");
    in.leave_out(option, "domain XML has no words for it");
    in.guest.devices.graphics.push_back(std::move(g));
    return true;
  });
}

namespace {

std::string* environment(argv_import& in, std::string_view name) {
  const auto found = std::ranges::find(in.env, name, &std::pair<std::string, std::string>::first);
  return found == in.env.end() ? nullptr : &found->second;
}

void forget_environment(argv_import& in, std::string_view name) {
  std::erase_if(in.env, [&](const auto& each) { return each.first == name; });
}

graphics& add_sdl(argv_import& in) {
  auto& all = in.guest.devices.graphics;
  const auto found = std::ranges::find(all, graphics_type::sdl, &graphics::type);
  if (found != all.end())
    return *found;
  auto& g = all.emplace_back();
  g.type = graphics_type::sdl;
  if (const auto* display = environment(in, "DISPLAY"))
    g.display = *display;
  if (const auto* authority = environment(in, "XAUTHORITY"))
    g.xauth = *authority;
  forget_environment(in, "DISPLAY");
  forget_environment(in, "XAUTHORITY");
  return g;
}

void read_gl(argv_import& in, line_option& option, graphics& g) {
  if (const auto* gl = option.props.take("gl")) {
    g.gl.emplace().enable = *gl == "off" ? yes_no::no : yes_no::yes;
    if (*gl == "core" || *gl == "es")
      in.note(option, fmt::format("gl={} becomes gl=on", *gl));
  }
  if (option.props.has("rendernode"))
    in.read(option, "rendernode", (g.gl ? *g.gl : g.gl.emplace()).rendernode);
}

} // namespace

void read_display(argv_import& in, line_option& option) {
  in.has_display = true;
  auto& props = option.props;
  const auto* type = props.peek("type");
  if (type == nullptr)
    in.refuse(option, "it names no display: none, sdl, gtk, vnc=PLACE, egl-headless, dbus and others are accepted");
  if (*type == "none") {
    option.done = true;
    return;
  }
  if (*type == "curses") {
    option.done = true;
    in.terminal = true;
    return;
  }
  if (props.has("vnc")) {
    read_vnc(in, option);
    return;
  }
  in.attempt(option, [&] {
    props.drop("type");
    graphics g;
    if (*type == "sdl" || *type == "gtk") {
      if (*type == "gtk")
        in.note(option, "a GTK window becomes one of SDL, the only kind domain XML has");
      auto& sdl = add_sdl(in);
      read_gl(in, option, sdl);
      if (in.flag(option, "full-screen") == true)
        sdl.fullscreen = yes_no::yes;
      in.leave_out(option, "domain XML has no words for it");
      return true;
    }
    if (*type == "spice-app") {
      g.type = graphics_type::spice;
      listen_on_socket(g, "/domain-");
      in.note(option, "it becomes a SPICE display on a socket: 'virt-viewer' opens it");
      read_gl(in, option, g);
    } else if (*type == "egl-headless") {
      g.type = graphics_type::egl_headless;
      read_gl(in, option, g);
    } else if (*type == "dbus") {
      g.type = graphics_type::dbus;
      in.read(option, "p2p", g.p2p);
      in.read(option, "addr", g.dbus_address);
      if (g.dbus_address.find("-dbus.sock") != std::string::npos)
        g.dbus_address.clear();
      read_gl(in, option, g);
      if (const auto* audio = props.take("audiodev"))
        g.audio_id = in.audio(*audio);
    } else {
      return false;
    }
    in.guest.devices.graphics.push_back(std::move(g));
    return true;
  });
}

void read_display_word(argv_import& in, line_option& option) {
  if (in.is_libvirts && option.name != "-full-screen")
    return; // a definition's own word
  option.done = true;
  if (option.name == "-full-screen") {
    in.fullscreen = true;
    return;
  }
  in.has_display = true;
  if (option.name == "-sdl")
    add_sdl(in);
  else
    in.terminal = true;
}

namespace {

bool has_keymap(const graphics& g) {
  return g.type == graphics_type::vnc || g.type == graphics_type::spice;
}

} // namespace

void read_keymap(argv_import& in, line_option& option) {
  in.keymap = &option;
  if (!in.is_libvirts)
    return;
  // There each display has its own, behind it.
  const auto shows = std::ranges::find_if(in.guest.devices.graphics.rbegin(), in.guest.devices.graphics.rend(), has_keymap);
  if (shows == in.guest.devices.graphics.rend())
    return;
  shows->keymap = *option.value;
  option.done = true;
  in.keymap = nullptr;
}

// ---- video

namespace {

struct video_row {
  std::string_view word, model; ///< "std" of -vga or a device's type, and the model.
};
constexpr video_row video_words[] = {{"cirrus", "cirrus"}, {"none", "none"},    {"qxl", "qxl"},  {"std", "vga"},
                                     {"virtio", "virtio"}, {"vmware", "vmvga"}, {"xenfb", "xen"}};
constexpr video_row video_devices[] = {
  {"VGA", "vga"},
  {"bochs-display", "bochs"},
  {"cirrus-vga", "cirrus"},
  {"qxl", "qxl"},
  {"qxl-vga", "qxl"},
  {"ramfb", "ramfb"},
  {"virtio-gpu", "virtio"},
  {"virtio-gpu-gl", "virtio"},
  {"virtio-vga", "virtio"},
  {"virtio-vga-gl", "virtio"},
  {"vmware-svga", "vmvga"},
  {"vhost-user-vga", "virtio"},
  {"vhost-user-gpu", "virtio"},
};

bool read_video(argv_import& in, line_option& option, const device_name& name) {
  video v;
  const auto row = std::ranges::find(video_devices, name.base, &video_row::word);
  v.model = row->model;
  const bool shows_text = name.base == "VGA" || name.base == "cirrus-vga" || name.base == "qxl-vga" ||
                          name.base == "vmware-svga" || name.base.find("-vga") != std::string::npos;
  if (shows_text && !in.guest.devices.videos.empty() && !in.is_libvirts)
    return false; // libvirt's second card is none of these
  read_virtio(in, option, v.virtio);
  if (name.base.starts_with("vhost-user")) {
    v.driver_name = "vhostuser";
    option.props.drop("chardev");
  }
  in.read(option, "max_outputs", v.heads);
  const auto kib = [&](std::string_view key, std::uint64_t bytes, maybe_number& into) {
    if (const auto size = in.number(option, key))
      into = static_cast<unsigned>(std::min<std::uint64_t>(*size * bytes / 1024, 1u << 31));
  };
  if (v.model == "qxl") {
    kib("ram_size", 1, v.ram), kib("vram_size", 1, v.vram);
    kib("ram_size_mb", mib_bytes, v.ram), kib("vram_size_mb", mib_bytes, v.vram);
    kib("vram64_size_mb", mib_bytes, v.vram64), kib("vgamem_mb", mib_bytes, v.vgamem);
  } else {
    kib("vgamem_mb", mib_bytes, v.vram), kib("vgamem", 1, v.vram);
  }
  in.read(option, "blob", v.blob);
  if (name.base.ends_with("-gl") || in.flag(option, "virgl") == true)
    v.acceleration.emplace().accel3d = yes_no::yes;
  video_resolution resolution;
  if (!in.is_libvirts || (option.props.has("xres") && option.props.has("yres"))) { // one alone is an override of its own
    in.read(option, "xres", resolution.x);
    in.read(option, "yres", resolution.y);
  }
  if (resolution.x || resolution.y)
    v.resolution = resolution;
  option.props.drop("edid", "on");
  if (!read_device(in, option, v))
    return false;
  in.guest.devices.videos.push_back(std::move(v));
  return true;
}

} // namespace

void read_vga(argv_import& in, line_option& option) {
  option.done = true;
  const auto row = std::ranges::find(video_words, *option.value, &video_row::word);
  if (row == std::end(video_words))
    in.refuse(option, "cirrus, none, qxl, std, virtio and vmware are accepted");
  in.vga = row->model;
}

// ---- sound

namespace {

/// The card that an HDA codec sits in is known by its id.
bool read_sound(argv_import& in, line_option& option, const device_name& name) {
  const auto row = std::ranges::find(sound_rows, name.base, &sound_row::type);
  const bool high_definition = row == std::end(sound_rows) && name.base != "ich9-intel-hda";
  sound s;
  s.model = high_definition ? std::string{"ich6"} : std::string{row->model};
  const auto* id = option.props.peek("id");
  const std::string bus = (id == nullptr ? std::string{"hda"} : *id) + ".0";
  if (const auto* audio = option.props.take("audiodev"))
    s.audio_id = in.audio_wish(*audio);
  in.read(option, "multi", s.multichannel);
  option.props.drop("iobase"), option.props.drop("irq"), option.props.drop("dma");
  const bool placed =
    s.model == "usb" ? (read_identity(in, option, s), read_usb_place(in, option, s)) : read_device(in, option, s);
  if (!placed)
    return false;
  // Codecs are devices of their own: those of this card.
  if (row != std::end(sound_rows) && row->codecs)
    for (auto& each : in.options) {
      const auto* driver = each.props.peek("driver");
      if (each.done || each.name != "-device" || driver == nullptr || !driver->starts_with("hda-"))
        continue;
      const auto* on = each.props.peek("bus");
      if (on != nullptr && *on != bus)
        continue;
      in.take(each);
      for (const std::string_view known : {"bus", "id", "cad"})
        each.props.drop(known);
      if (const auto* audio = each.props.take("audiodev"); audio != nullptr)
        s.audio_id = in.audio_wish(*audio);
      sound_codec codec;
      codec.type = each.props.take("driver")->substr(4);
      s.codecs.push_back(std::move(codec));
    }
  if (s.codecs.size() == 1 && s.codecs.front().type == "duplex")
    s.codecs.clear(); // the usual one
  in.guest.devices.sounds.push_back(std::move(s));
  return true;
}

/// A codec: its card has taken it, unless there is none.
bool read_codec(argv_import&, line_option&, const device_name&) {
  return false;
}

constexpr device_row sound_devices[] = {
  {"AC97", read_sound},       {"ES1370", read_sound},    {"ich9-intel-hda", read_sound},
  {"intel-hda", read_sound},  {"sb16", read_sound},      {"usb-audio", read_sound},
  {"hda-duplex", read_codec}, {"hda-micro", read_codec}, {"hda-output", read_codec},
};

} // namespace

device_reader graphics_reader(std::string_view base) {
  if (std::ranges::find(video_devices, base, &video_row::word) != std::end(video_devices))
    return read_video;
  const auto row = std::ranges::find(sound_devices, base, &device_row::driver);
  return row == std::end(sound_devices) ? nullptr : row->read;
}

void read_soundhw(argv_import& in, line_option& option) {
  option.done = true;
  struct word_row {
    std::string_view word, model;
  };
  constexpr word_row cards[] = {
    {"ac97", "ac97"}, {"es1370", "es1370"}, {"hda", "ich6"}, {"pcspk", "pcspk"}, {"sb16", "sb16"}};
  std::string_view rest = *option.value;
  while (!rest.empty()) {
    const auto comma = std::min(rest.find(','), rest.size());
    const auto word = rest.substr(0, comma);
    const auto row = std::ranges::find(cards, word, &word_row::word);
    if (row != std::end(cards))
      in.guest.devices.sounds.emplace_back().model = row->model;
    else if (word == "all")
      for (const auto& each : cards)
        in.guest.devices.sounds.emplace_back().model = each.model;
    else
      in.refuse(option,
                fmt::format("sound card '{}' is not known: ac97, es1370, hda, pcspk, sb16 and all are accepted", word));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
}

namespace {

void read_stream(argv_import& in, line_option& option, const std::string& prefix, std::optional<audio_stream>& into) {
  if (option.props.has_below(prefix))
    each_audio_setting(into.emplace(),
                       [&](const char* property, auto& field) { in.read(option, prefix + property, field); });
}

} // namespace

void read_audiodev(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    auto& props = option.props;
    const auto* driver = props.take("driver");
    const auto* id = props.take("id");
    if (driver == nullptr || id == nullptr)
      in.refuse(option, "it needs a driver and an id: -audiodev DRIVER,id=ID is accepted");
    const auto row = std::ranges::find(audio_rows, *driver, &audio_row::driver);
    if (row == std::end(audio_rows))
      return false;
    audio made;
    made.type = row->type;
    made.id = in.audio(*id);
    in.read(option, "timer-period", made.timer_period);
    in.read(option, "path", made.path);
    in.read(option, "server", made.server_name);
    in.read(option, "try-mmap", made.try_mmap);
    in.read(option, "exclusive", made.exclusive);
    in.read(option, "dsp-policy", made.dsp_policy);
    read_stream(in, option, "in.", made.input);
    read_stream(in, option, "out.", made.output);
    in.guest.devices.audios.push_back(std::move(made));
    return true;
  });
}

// ---- at the end

void finish_graphics(argv_import& in) {
  auto& devices = in.guest.devices;
  if (!in.has_display && !in.no_defaults) {
    auto& g = add_sdl(in);
    if (in.facts != nullptr)
      in.notes.emplace_back("no option says what is shown where: QEMU's window becomes one of SDL");
    static_cast<void>(g);
  }
  if (in.fullscreen)
    for (auto& g : devices.graphics)
      if (g.type == graphics_type::sdl)
        g.fullscreen = yes_no::yes;
  if (in.keymap != nullptr) {
    bool used = false;
    for (auto& g : devices.graphics)
      if (has_keymap(g)) {
        g.keymap = *in.keymap->value;
        used = true;
      }
    in.keymap->done = used;
  }
  const bool shown = !devices.graphics.empty();
  if (!in.vga.empty()) {
    if (in.vga != "none") {
      video v;
      v.model = in.vga;
      devices.videos.insert(devices.videos.begin(), std::move(v));
    }
  } else if (devices.videos.empty() && !in.no_defaults && (in.is_x86() || (shown && in.is_pseries()))) {
    // It is there with -nographic as well. QEMU had a Cirrus card until 2.2; which one an unknown emulator has,
    // libvirt's import took for that.
    devices.videos.emplace_back().model = in.facts == nullptr ? "cirrus" : "vga";
  } else if (devices.videos.empty() && shown) {
    devices.videos.emplace_back().model = "none"; // or a card would be added for the display
  }
}

} // namespace troupe
