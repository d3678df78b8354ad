#include "actors/control_methods.hpp"

#include "actors/control_serve.hpp"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

constexpr auto remote = rpc_program_remote;
constexpr auto qemu = rpc_program_qemu;
using enum access;
using enum stage;

// virDomainShutdownFlagValues and virDomainRebootFlagValues: ACPI, agent, initctl, signal, paravirt.
constexpr std::uint32_t power_modes = 1 | 2 | 4 | 8 | 16;
constexpr std::uint32_t destroy_graceful = 1;
// virDomainSnapshotListFlags. There are no snapshots, so any of them is obeyed.
constexpr std::uint32_t snapshot_filters = (1u << 11) - 1;

// What clients can call. Anything else is an unknown procedure. The arguments are in libvirt's remote_protocol.x and
// qemu_protocol.x, whose order the serving functions follow. What read-only clients may call is libvirt's choice.
constexpr control_method methods[] = {
  {remote, 1, "CONNECT_OPEN", look, any, serve_open},
  {remote, 2, "CONNECT_CLOSE", look, any, serve_close},
  {remote, 3, "CONNECT_GET_TYPE", look, open, serve_type},
  {remote, 4, "CONNECT_GET_VERSION", look, open, serve_version},
  {remote, 5, "CONNECT_GET_MAX_VCPUS", look, open, serve_max_vcpus},
  {remote, 6, "NODE_GET_INFO", look, open, serve_node_info},
  {remote, 7, "CONNECT_GET_CAPABILITIES", look, open, serve_capabilities},
  {remote, 9, "DOMAIN_CREATE", change, open, serve_create},
  {remote, 10, "DOMAIN_CREATE_XML", change, open, serve_create_xml},
  {remote, 11, "DOMAIN_DEFINE_XML", change, open, serve_define},
  {remote, 12, "DOMAIN_DESTROY", change, open, serve_order<destroy_guest>},
  {remote, 14, "DOMAIN_GET_XML_DESC", look, open, serve_xml},
  {remote, 15, "DOMAIN_GET_AUTOSTART", look, open, serve_view<write_autostart>},
  {remote, 16, "DOMAIN_GET_INFO", look, open, serve_view<write_info>},
  {remote, 17, "DOMAIN_GET_MAX_MEMORY", look, open, serve_view<write_max_memory>},
  {remote, 19, "DOMAIN_GET_OS_TYPE", look, open, serve_view<write_os_type>},
  {remote, 21, "CONNECT_LIST_DEFINED_DOMAINS", look, open, serve_list_inactive},
  {remote, 22, "DOMAIN_LOOKUP_BY_ID", look, open, serve_lookup_id},
  {remote, 23, "DOMAIN_LOOKUP_BY_NAME", look, open, serve_lookup_name},
  {remote, 24, "DOMAIN_LOOKUP_BY_UUID", look, open, serve_lookup_uuid},
  {remote, 25, "CONNECT_NUM_OF_DEFINED_DOMAINS", look, open, serve_count_inactive},
  {remote, 27, "DOMAIN_REBOOT", change, open, serve_order_flags<reboot_guest, power_modes>},
  {remote, 28, "DOMAIN_RESUME", change, open, serve_order<resume_guest>},
  {remote, 29, "DOMAIN_SET_AUTOSTART", change, open, serve_set_autostart},
  {remote, 33, "DOMAIN_SHUTDOWN", change, open, serve_order<shutdown_guest>},
  {remote, 34, "DOMAIN_SUSPEND", change, open, serve_order<suspend_guest>},
  {remote, 35, "DOMAIN_UNDEFINE", change, open, serve_undefine},
  {remote, 37, "CONNECT_LIST_DOMAINS", look, open, serve_list_ids},
  {remote, 51, "CONNECT_NUM_OF_DOMAINS", look, open, serve_count_active},
  {remote, 59, "CONNECT_GET_HOSTNAME", look, open, serve_hostname},
  {remote, 60, "CONNECT_SUPPORTS_FEATURE", look, any, serve_feature},
  {remote, 66, "AUTH_LIST", look, any, serve_auth_list},
  {remote, 70, "AUTH_POLKIT", look, any, serve_auth_polkit},
  {remote, 101, "NODE_GET_CELLS_FREE_MEMORY", look, open, serve_cells_free_memory},
  {remote, 102, "NODE_GET_FREE_MEMORY", look, open, serve_free_memory},
  {remote, 110, "CONNECT_GET_URI", look, open, serve_uri},
  {remote, 121, "DOMAIN_GET_SECURITY_LABEL", look, open, serve_view<write_security_label>},
  {remote, 122, "NODE_GET_SECURITY_MODEL", look, open, serve_security_model},
  {remote, 135, "CONNECT_DOMAIN_XML_FROM_NATIVE", change, open, serve_xml_from_native},
  {remote, 136, "CONNECT_DOMAIN_XML_TO_NATIVE", change, open, serve_xml_to_native},
  {remote, 149, "CONNECT_IS_SECURE", look, open, serve_is_secure},
  {remote, 150, "DOMAIN_IS_ACTIVE", look, open, serve_view<write_active>},
  {remote, 151, "DOMAIN_IS_PERSISTENT", look, open, serve_view<write_persistent>},
  {remote, 157, "CONNECT_GET_LIB_VERSION", look, open, serve_library_version},
  {remote, 158, "CONNECT_COMPARE_CPU", look, open, serve_compare_cpu},
  {remote, 162, "CONNECT_BASELINE_CPU", look, open, serve_baseline_cpu},
  {remote, 183, "DOMAIN_HAS_MANAGED_SAVE_IMAGE", look, open, serve_view_flags<write_managed_save>},
  {remote, 187, "DOMAIN_SNAPSHOT_NUM", look, open, serve_view_flags<write_snapshots, snapshot_filters>},
  {remote, 196, "DOMAIN_CREATE_WITH_FLAGS", change, open, serve_create_flags},
  {remote, 201, "DOMAIN_OPEN_CONSOLE", change, open, serve_open_console},
  {remote, 202, "DOMAIN_IS_UPDATED", look, open, serve_view<write_updated>},
  {remote, 212, "DOMAIN_GET_STATE", look, open, serve_view_flags<write_state>},
  {remote, 231, "DOMAIN_UNDEFINE_FLAGS", change, open, serve_undefine_flags},
  {remote, 234, "DOMAIN_DESTROY_FLAGS", change, open, serve_order_flags<destroy_guest, destroy_graceful>},
  {remote, 245, "DOMAIN_RESET", change, open, serve_order_flags<reset_guest, 0>},
  {remote, 258, "DOMAIN_SHUTDOWN_FLAGS", change, open, serve_order_flags<shutdown_guest, power_modes>},
  {remote, 264, "DOMAIN_SET_METADATA", change, open, serve_set_metadata},
  {remote, 265, "DOMAIN_GET_METADATA", look, open, serve_get_metadata},
  {remote, 273, "CONNECT_LIST_ALL_DOMAINS", look, open, serve_list_all},
  {remote, 278, "DOMAIN_GET_SECURITY_LABEL_LIST", look, open, serve_view<write_security_labels>},
  {remote, 293, "NODE_GET_CPU_MAP", look, open, serve_cpu_map},
  {remote, 312, "CONNECT_GET_CPU_MODEL_NAMES", look, open, serve_cpu_models},
  {remote, 316, "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY", look, open, serve_register_event},
  {remote, 317, "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY", look, open, serve_deregister_event},
  {remote, 340, "NODE_GET_FREE_PAGES", look, open, serve_free_pages},
  {remote, 342, "CONNECT_GET_DOMAIN_CAPABILITIES", change, open, serve_domain_capabilities},
  {remote, 344, "CONNECT_GET_ALL_DOMAIN_STATS", look, open, serve_all_stats},
  {remote, 350, "DOMAIN_DEFINE_XML_FLAGS", change, open, serve_define_flags},
  {remote, 360, "CONNECT_REGISTER_CLOSE_CALLBACK", look, open, serve_close_callback},
  {remote, 361, "CONNECT_UNREGISTER_CLOSE_CALLBACK", look, open, serve_close_callback},
  {remote, 393, "CONNECT_COMPARE_HYPERVISOR_CPU", change, open, serve_compare_hypervisor_cpu},
  {remote, 394, "CONNECT_BASELINE_HYPERVISOR_CPU", change, open, serve_baseline_hypervisor_cpu},
  {remote, 426, "DOMAIN_GET_MESSAGES", look, open, serve_messages},
  {qemu, 1, "DOMAIN_MONITOR_COMMAND", change, open, serve_monitor_command},
};

constexpr auto key_of = [](const control_method& row) { return std::pair{row.program, row.number}; };
static_assert(std::ranges::is_sorted(methods, {}, key_of));

} // namespace

std::span<const control_method> control_methods() {
  return methods;
}

const control_method* find_method(std::uint32_t program, std::int32_t number) {
  const std::pair wanted{program, number};
  const auto* it = std::ranges::lower_bound(methods, wanted, {}, key_of);
  return it != std::end(methods) && key_of(*it) == wanted ? it : nullptr;
}

std::string api_name(const control_method& method) {
  std::string out = "vir";
  bool first = true;
  std::string_view rest = method.name;
  while (!rest.empty()) {
    const auto word = rest.substr(0, rest.find('_'));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    const bool as_is =
      word == "XML" || word == "ID" || word == "UUID" || word == "URI" || word == "OS" || word == "CPU";
    for (std::size_t i = 0; i < word.size(); ++i)
      out += i == 0 || as_is ? word[i] : static_cast<char>(word[i] - 'A' + 'a');
    // A domain's procedures of the QEMU program are called virDomainQemu...
    if (std::exchange(first, false) && method.program == qemu)
      out += "Qemu";
  }
  return out;
}

} // namespace troupe
