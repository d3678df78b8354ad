#include "actors/control_serve.hpp"

#include "xml/domain_passes.hpp"
#include "xml/from_argv.hpp"
#include "xml/host_model.hpp"
#include "xml/qemu_argv.hpp"

#include <optional>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

// virDomainXMLFlags
constexpr std::uint32_t xml_secure = 1, xml_inactive = 2, xml_update_cpu = 4, xml_migratable = 8;
// virDomainDefineFlags: validate
constexpr std::uint32_t define_flags = 1;
// virDomainCreateFlags. Definitions are always validated.
constexpr std::uint32_t create_paused = 1, create_autodestroy = 2, create_validate = 16;
// virDomainModificationImpact
constexpr std::uint32_t affect_live = 1, affect_config = 2;

void define(const control_call& call, std::string xml, std::uint32_t flags) {
  ask(call, call.client->around().driver, work_within, define_guest{std::move(xml), flags},
      [call](const guest_ref& guest) { call.answer(encode(guest)); });
}

void undefine(const control_call& call, const rpc_domain& which, std::uint32_t flags) {
  ask(call, call.client->around().driver, work_within, undefine_guest{format_uuid(which.uuid), flags},
      [call](const done&) { call.answer(); });
}

/// The definition that these flags show. Null: there is none now.
const domain* definition_shown(const guest_view& view, std::uint32_t flags) {
  const bool inactive = (flags & xml_inactive) != 0 || !view.live;
  return inactive && view.config ? view.config.get() : view.live.get();
}

result<std::string> xml_of(const guest_view& view, const domain* from, std::uint32_t flags) {
  const bool inactive = (flags & xml_inactive) != 0 || !view.live;
  if (!from)
    return fail(errc::wrong_state, fmt::format("guest '{}' has no definition now", view.ref.name));
  const xml_options options{(flags & xml_secure) != 0, inactive, (flags & xml_migratable) != 0};
  if (inactive || view.memory_kib == 0 || view.memory_kib == current_memory_kib_of(*from))
    return write_domain(*from, options);
  auto ballooned = *from;
  ballooned.current_memory_kib = view.memory_kib;
  return write_domain(ballooned, options);
}

/// The definition that a call with these flags is about. Errors: wrong_state.
result<const domain*> definition_for(const guest_view& view, std::uint32_t flags) {
  const auto* which = (flags & affect_live) != 0     ? view.live.get()
                      : (flags & affect_config) != 0 ? view.config.get()
                                                     : shown_definition(view);
  if (which != nullptr)
    return which;
  return (flags & affect_live) != 0 || view.persistent
           ? fail(errc::wrong_state, "domain is not running")
           : fail(errc::wrong_state, "transient domains do not have any persistent config");
}

/// Whether `format` is one of command lines; if not, the call is refused.
bool accept_native(const control_call& call, std::string_view format) {
  if (format == "qemu-argv")
    return true;
  call.refuse(
    {errc::bad_argument, fmt::format("unsupported config type '{}': it must be 'qemu-argv'", format.substr(0, 256))});
  return false;
}

/// `facts`: of the emulator, null when it is not here.
void answer_imported(const control_call& call, const std::string& text, const emulator_facts* facts) {
  auto imported = domain_from_argv(text, facts);
  if (!imported)
    return call.refuse(imported.error());
  const auto& around = call.client->around();
  const auto assumed = facts != nullptr ? emulator_facts{} : assumed_facts(imported->guest, around.about_host.arch);
  const auto whole = complete_imported(*imported, facts != nullptr ? *facts : assumed,
                                       [&around] { return around.machine->random_bytes(); });
  if (!whole)
    return call.refuse(whole.error());
  for (const auto& note : imported->notes)
    spdlog::warn("command line of guest '{}': {}", imported->guest.name, note);
  answer_text(call, imported_xml(*imported));
}

/// The line that a shell would run. `firmware`: this host's, for a definition that leaves the choice to it.
result<std::string> native_form(domain& guest, const emulator_facts& facts, const host_firmware& firmware,
                                const control_surroundings& around) {
  const auto random = [&around] { return around.machine->random_bytes(); };
  if (auto whole = complete_definition(guest, facts, random); !whole)
    return tl::make_unexpected(whole.error());
  if (wants_firmware(guest))
    if (auto chosen = choose_firmware(guest, firmware, facts.arch); !chosen)
      return tl::make_unexpected(chosen.error());
  choose_variables(guest, around.around->paths.state);
  forget_connections(guest);
  if (auto placed = give_places(guest, facts, random); !placed)
    return tl::make_unexpected(placed.error());
  assign_aliases(guest);
  const auto& guests = *around.around;
  assign_display_ports(guest, {}, guests.vnc_listen, guests.spice_listen); // each has an example port
  run_settings settings;
  settings.run_dir = run_dir_under(guests.paths.guest_runs, guest, -1);
  settings.state_dir = guests.paths.state;
  settings.networks = guests.networks;
  settings.session = around.session;
  settings.generic_taps = true;
  auto line = qemu_command_line(guest, facts, settings);
  if (!line)
    return tl::make_unexpected(line.error());
  return shell_line(*line) + "\n";
}

} // namespace

void serve_define(control_call call, xdr_reader& args) {
  const auto xml = args.string(rpc_max_string);
  if (complete(call, args))
    define(call, std::string{xml}, 0);
}

void serve_define_flags(control_call call, xdr_reader& args) {
  const auto xml = args.string(rpc_max_string);
  const auto flags = args.u32();
  if (complete(call, args) && accept_flags(call, flags, define_flags))
    define(call, std::string{xml}, flags);
}

void serve_create_xml(control_call call, xdr_reader& args) {
  const auto xml = args.string(rpc_max_string);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, create_paused | create_autodestroy | create_validate))
    return;
  create_guest order{std::string{xml}, flags, nullptr};
  if ((flags & create_autodestroy) != 0)
    order.owner = call.client->address();
  ask(call, call.client->around().driver, work_within, std::move(order),
      [call](const guest_ref& guest) { call.answer(encode(guest)); });
}

void serve_undefine(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  if (complete(call, args))
    undefine(call, which, 0);
}

void serve_undefine_flags(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto flags = args.u32();
  if (complete(call, args))
    undefine(call, which, flags); // the driver knows which
}

void serve_xml(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, xml_secure | xml_inactive | xml_update_cpu | xml_migratable))
    return;
  if (call.client->is_read_only() && (flags & (xml_secure | xml_migratable)) != 0)
    return call.refuse(
      {errc::read_only, "read only access prevents virDomainGetXMLDesc with the secure or migratable flag"});
  with_guest(call, which, [call, flags](guest_entry& found) {
    const auto answer = [call, flags, view = found.view](const domain* definition) {
      answer_text(call, xml_of(*view, definition, flags));
    };
    const auto* definition = definition_shown(*found.view, flags);
    if ((flags & xml_update_cpu) == 0 || definition == nullptr || !definition->cpu || definition->cpu->mode != "host-model")
      return answer(definition);
    ask(call, call.client->around().prober, work_within, emulator_wanted{definition->devices.emulator},
        [answer, named = *definition](const emulator_facts_ptr& facts) mutable {
          name_host_model(named, *facts);
          answer(&named);
        });
  });
}

void serve_set_autostart(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto on = args.boolean();
  if (!complete(call, args))
    return;
  ask(call, call.client->around().driver, work_within, set_autostart{format_uuid(which.uuid), on},
      [call](const done&) { call.answer(); });
}

void serve_set_metadata(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  set_metadata order;
  order.type = args.i32();
  const auto text = args.optional_string(rpc_max_string);
  order.key = args.optional_string(rpc_max_string).value_or("");
  order.uri = args.optional_string(rpc_max_string).value_or("");
  order.flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, order.flags, affect_live | affect_config))
    return;
  order.text = text.value_or("");
  order.remove = !text;
  with_guest(call, which, [call, order](guest_entry& found) {
    ask(call, found.actor, work_within, order, [call](const done&) { call.answer(); });
  });
}

void serve_get_metadata(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto type = args.i32();
  const auto uri = args.optional_string(rpc_max_string).value_or("");
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, affect_live | affect_config))
    return;
  if (flags == (affect_live | affect_config))
    return call.refuse({errc::bad_argument, "virDomainGetMetadata takes one of the flags live and config"});
  with_guest(call, which, [call, type, uri, flags](guest_entry& found) {
    const auto of = definition_for(*found.view, flags);
    if (!of)
      return call.refuse(of.error());
    answer_text(call, metadata_of(**of, type, uri));
  });
}

void serve_xml_to_native(control_call call, xdr_reader& args) {
  const auto format = args.string(rpc_max_string);
  const auto xml = args.string(rpc_max_string);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, 0))
    return;
  if (!accept_native(call, format))
    return;
  auto parsed = troupe::read_domain(xml);
  if (!parsed)
    return call.refuse(parsed.error());
  choose_emulator(*parsed, call.client->around().about_host.arch);
  auto guest = std::make_shared<domain>(std::move(*parsed));
  auto binary = guest->devices.emulator;
  ask(call, call.client->around().prober, work_within, emulator_wanted{std::move(binary)},
      [call, guest](const emulator_facts_ptr& facts) {
        const auto answer = [call, guest, facts](const result<host_firmware>& firmware) {
          answer_text(call, firmware ? native_form(*guest, *facts, *firmware, call.client->around())
                                     : tl::make_unexpected(firmware.error()));
        };
        if (!wants_firmware(*guest))
          return answer(host_firmware{});
        call.client->around().machine->find_firmware(
          inside_as<connection_actor, result<host_firmware>>(call.client->self(), answer));
      });
}

void serve_xml_from_native(control_call call, xdr_reader& args) {
  const auto format = args.string(rpc_max_string);
  const auto text = std::make_shared<const std::string>(args.string(rpc_max_string));
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, 0) || !accept_native(call, format))
    return;
  auto binary = emulator_of_argv(*text);
  if (!binary)
    return call.refuse(binary.error());
  call.client->self()
    ->request(call.client->around().prober, work_within, emulator_wanted{std::move(*binary)})
    .then([call, text](const emulator_facts_ptr& facts) { answer_imported(call, *text, facts.get()); },
          [call, text](const caf::error&) { answer_imported(call, *text, nullptr); });
}

} // namespace troupe
