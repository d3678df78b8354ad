#include "xml/domain_passes.hpp"
#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {

std::string uuid_text(const domain& guest) {
  auto text = guest.uuid;
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

std::uint64_t max_memory_kib_of(const domain& guest) {
  return guest.memory_kib.value_or(0);
}

std::uint64_t current_memory_kib_of(const domain& guest) {
  return guest.current_memory_kib.value_or(max_memory_kib_of(guest));
}

unsigned vcpus_of(const domain& guest) {
  const auto most = guest.vcpu_max.value_or(1);
  if (guest.vcpus.empty())
    return std::min(guest.vcpu_current.value_or(most), most);
  // Each one says for itself whether it is there.
  const auto off = std::ranges::count_if(guest.vcpus, [](const auto& each) { return each.enabled == yes_no::no; });
  return most - std::min(most, static_cast<unsigned>(off));
}

crash_action on_crash_of(const domain& guest) {
  switch (guest.on_crash) {
  case lifecycle_action::restart:
  case lifecycle_action::rename_restart:
  case lifecycle_action::coredump_restart:
    return crash_action::restart;
  case lifecycle_action::preserve:
    return crash_action::preserve;
  default:
    return crash_action::destroy;
  }
}

bool restarts_on_poweroff(const domain& guest) {
  return guest.on_poweroff == lifecycle_action::restart || guest.on_poweroff == lifecycle_action::rename_restart;
}

result<console_end> console_of(const domain& guest, std::string_view alias) {
  const auto& devices = guest.devices;
  const chardev* found = nullptr;
  for (const auto* list : {&devices.consoles, &devices.serials, &devices.parallels, &devices.channels})
    for (const auto& each : *list) {
      const bool is_port = each.kind == chardev_kind::console || each.kind == chardev_kind::serial;
      if (found == nullptr && (alias.empty() ? is_port : each.alias == alias))
        found = &each;
    }
  if (found == nullptr)
    return fail(errc::bad_argument,
                alias.empty()
                  ? fmt::format("guest '{}' has no console: add <serial type='pty'/> to its devices", guest.name)
                  : fmt::format("guest '{}' has no character device '{}'", guest.name, alias));
  // What shows the serial port is reached where the port is.
  const auto& port =
    found->kind == chardev_kind::console && console_mirrors_serial(guest) && found == &devices.consoles.front()
      ? devices.serials.front()
      : *found;
  const auto& end = port.source.first();
  const auto called = port.alias.empty() ? std::string{word_of(port.source.type)} : port.alias;
  if (port.source.type != chardev_type::pty && port.source.type != chardev_type::unix_)
    return fail(errc::operation_failed, fmt::format("character device {} is not using a PTY: it is of type '{}'",
                                                    called, word_of(port.source.type)));
  if (end.path.empty())
    return fail(errc::operation_failed,
                fmt::format("character device {} of guest '{}' has no end on the host yet", called, guest.name));
  return console_end{end.path, port.source.type == chardev_type::unix_};
}

} // namespace troupe
