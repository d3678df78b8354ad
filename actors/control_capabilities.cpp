#include "actors/control_serve.hpp"

#include "actors/host.hpp"
#include "xml/cpu_models.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

// What host and emulators can do: capabilities, and questions about CPUs.

namespace troupe {
namespace {

constexpr std::uint32_t longest_name = 4096; // of a machine, an architecture, a binary
constexpr std::uint32_t most_cpus = 256;     // REMOTE_CPU_BASELINE_MAX

// virConnectCompareCPUFlags, virConnectBaselineCPUFlags
constexpr std::uint32_t compare_fail = 1, compare_validate = 2;
constexpr std::uint32_t baseline_expand = 1, baseline_migratable = 2;

error no_emulator(std::string_view arch) {
  return {errc::unsupported_config, fmt::format("unable to find any emulator to serve '{}' architecture: install one", arch)};
}

/// What a client says of the emulator it means.
struct emulator_wish {
  std::optional<std::string> emulator, arch, machine, virt_type;
};

emulator_wish read_wish(xdr_reader& args) {
  emulator_wish wish;
  wish.emulator = args.optional_string(longest_name);
  wish.arch = args.optional_string(longest_name);
  wish.machine = args.optional_string(longest_name);
  wish.virt_type = args.optional_string(longest_name);
  return wish;
}

template <class Then>
void with_emulators(const control_call& call, Then then) {
  ask(call, call.client->around().prober, work_within, list_emulators{}, std::move(then));
}

/// The emulator of the host's own architecture, or the call is refused.
template <class Then>
void with_main_emulator(const control_call& call, Then then) {
  with_emulators(call, [call, then](const std::vector<emulator_facts_ptr>& found) {
    const auto& arch = call.client->around().about_host.arch;
    const auto* one = main_emulator(found, arch);
    if (one == nullptr)
      return call.refuse(no_emulator(arch));
    then(*one);
  });
}

/// The emulator a client means, or the call is refused.
template <class Then>
void with_emulator(const control_call& call, const emulator_wish& wish, Then then) {
  if (wish.emulator)
    return ask(call, call.client->around().prober, work_within, emulator_wanted{*wish.emulator},
               [call, wish, then](const emulator_facts_ptr& facts) {
                 if (wish.arch && *wish.arch != libvirt_arch(facts->arch) && *wish.arch != facts->arch)
                   return call.refuse({errc::bad_argument,
                                       fmt::format("architecture from emulator '{}' doesn't match given architecture '{}'",
                                                   libvirt_arch(facts->arch), *wish.arch)});
                 then(facts);
               });
  with_emulators(call, [call, wish, then](const std::vector<emulator_facts_ptr>& found) {
    const auto arch = wish.arch.value_or(call.client->around().about_host.arch);
    const auto facts = emulator_for(found, arch);
    if (!facts)
      return call.refuse(no_emulator(arch));
    then(facts);
  });
}

/// Whether CPUs of the emulator's architecture can be compared; if not, the call is refused.
bool accept_comparing(const control_call& call, const emulator_facts& facts) {
  if (!facts.cpu_models.empty())
    return true;
  call.refuse({errc::unsupported_operation,
               fmt::format("'{}' does not tell the CPUs of architecture '{}' by their features: they cannot be compared",
                           facts.binary, libvirt_arch(facts.arch))});
  return false;
}

/// What a call that compares has last, once it was accepted.
struct comparison {
  cpu_text wanted;
  bool must_fit = false;
};

std::optional<comparison> read_comparison(const control_call& call, xdr_reader& args) {
  const auto xml = args.string(rpc_max_string);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, compare_fail | compare_validate))
    return std::nullopt;
  auto wanted = read_cpu(xml, (flags & compare_validate) != 0);
  if (wanted)
    return comparison{std::move(*wanted), (flags & compare_fail) != 0};
  call.refuse(wanted.error());
  return std::nullopt;
}

void answer_comparison(const control_call& call, const cpu_definition& host, const comparison& wish, const emulator_facts& facts) {
  const auto compared = compare_cpu(host, wish.wanted, facts);
  if (!compared)
    return call.refuse(compared.error());
  if (compared->order == cpu_order::incompatible && wish.must_fit)
    return call.refuse({errc::cpu_incompatible, compared->why});
  xdr_writer out;
  out.i32(static_cast<std::int32_t>(compared->order));
  call.answer(out.take());
}

/// What a call for a baseline has last, once it was accepted.
struct baseline {
  std::vector<cpu_text> cpus;
  baseline_options options;
};

std::optional<baseline> read_baseline(const control_call& call, xdr_reader& args) {
  std::vector<std::string_view> texts;
  for (auto left = args.count(most_cpus); left > 0 && !args.failed(); --left)
    texts.push_back(args.string(rpc_max_string));
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, baseline_expand | baseline_migratable))
    return std::nullopt;
  if (texts.empty()) {
    call.refuse({errc::bad_argument, fmt::format("xmlCPUs in {} must name at least one CPU", api_name(*call.method))});
    return std::nullopt;
  }
  baseline out;
  out.options.expand = (flags & baseline_expand) != 0;
  out.options.migratable = (flags & baseline_migratable) != 0;
  for (const auto text : texts) {
    auto cpu = read_cpu(text);
    if (!cpu) {
      call.refuse(cpu.error());
      return std::nullopt;
    }
    out.cpus.push_back(std::move(*cpu));
  }
  return out;
}

void answer_baseline(const control_call& call, const baseline& wish, const emulator_facts& facts, std::string_view fallback) {
  const auto cpu = baseline_cpu(wish.cpus, facts, wish.options);
  if (!cpu)
    return call.refuse(cpu.error());
  answer_text(call, write_cpu(*cpu, fallback));
}

/// The CPU that guests of this emulator may have, or the call is refused.
const cpu_definition* accept_most_cpu(const control_call& call, const emulator_facts& facts, const emulator_wish& wish) {
  const auto under = accelerator_for(facts, wish.virt_type.value_or(""));
  if (!under) {
    call.refuse(under.error());
    return nullptr;
  }
  if (wish.machine && !find_machine(facts, *wish.machine)) {
    call.refuse({errc::bad_argument, fmt::format("the machine '{}' is not supported by emulator '{}'", *wish.machine, facts.binary)});
    return nullptr;
  }
  if (!accept_comparing(call, facts))
    return nullptr;
  const auto* most = most_cpu(facts, *under);
  if (most == nullptr)
    call.refuse({errc::unsupported_operation, fmt::format("'{}' does not tell what CPU it gives its guests", facts.binary)});
  return most;
}

} // namespace

void serve_version(control_call call, xdr_reader& args) {
  if (!complete(call, args))
    return;
  with_main_emulator(call, [call](const emulator_facts& facts) {
    xdr_writer out;
    out.u64(facts.version.major * 1'000'000ull + facts.version.minor * 1'000ull + facts.version.micro);
    call.answer(out.take());
  });
}

void serve_capabilities(control_call call, xdr_reader& args) {
  if (!complete(call, args))
    return;
  with_emulators(call, [call](const std::vector<emulator_facts_ptr>& found) {
    answer_text(call, capabilities_xml(call.client->around().capabilities, found));
  });
}

void serve_domain_capabilities(control_call call, xdr_reader& args) {
  const auto wish = read_wish(args);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, 0))
    return;
  with_emulator(call, wish, [call, wish](const emulator_facts_ptr& facts) {
    call.client->around().machine->find_firmware(inside_as<connection_actor, result<host_firmware>>(
      call.client->self(), [call, wish, facts](const result<host_firmware>& firmware) {
        if (!firmware)
          return call.refuse(firmware.error());
        answer_text(call, domain_capabilities_xml(*facts, wish.machine.value_or(""), wish.virt_type.value_or(""), *firmware));
      }));
  });
}

void serve_max_vcpus(control_call call, xdr_reader& args) {
  const auto type = args.optional_string(longest_name);
  if (!complete(call, args))
    return;
  auto wish = type.value_or("");
  std::ranges::transform(wish, wish.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (type && wish != "kvm" && wish != "qemu")
    return call.refuse({errc::bad_argument, fmt::format("unknown type '{}': it can be kvm or qemu", *type)});
  with_main_emulator(call, [call, wish](const emulator_facts& facts) {
    if (const auto under = accelerator_for(facts, wish); !under)
      return call.refuse(under.error());
    std::uint32_t most = 0;
    for (const auto& machine : facts.machines)
      most = std::max(most, machine.max_cpus);
    xdr_writer out;
    out.i32(static_cast<std::int32_t>(most));
    call.answer(out.take());
  });
}

void serve_cpu_models(control_call call, xdr_reader& args) {
  const std::string arch{args.string(longest_name)};
  const auto need_results = args.boolean();
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, 0))
    return;
  with_emulators(call, [call, arch, need_results](const std::vector<emulator_facts_ptr>& found) {
    const auto facts = emulator_for(found, arch);
    if (!facts)
      return call.refuse({errc::bad_argument,
                          fmt::format("no emulator for architecture '{}' is here to name its CPU models", arch)});
    std::vector<std::string_view> names;
    for (const auto& model : facts->tcg_usable ? facts->tcg_cpus : facts->kvm_cpus)
      if (is_plain_model(model.name))
        names.push_back(model.name);
    xdr_writer out;
    out.count(need_results ? names.size() : 0);
    if (need_results)
      for (const auto name : names)
        out.string(name);
    out.i32(static_cast<std::int32_t>(names.size()));
    call.answer(out.take());
  });
}

void serve_compare_cpu(control_call call, xdr_reader& args) {
  auto wish = read_comparison(call, args);
  if (!wish)
    return;
  with_main_emulator(call, [call, wish = std::move(*wish)](const emulator_facts& facts) {
    if (accept_comparing(call, facts))
      answer_comparison(call, host_cpu(call.client->around().capabilities, facts), wish, facts);
  });
}

void serve_compare_hypervisor_cpu(control_call call, xdr_reader& args) {
  const auto whose = read_wish(args);
  auto wish = read_comparison(call, args);
  if (!wish)
    return;
  with_emulator(call, whose, [call, whose, wish = std::move(*wish)](const emulator_facts_ptr& facts) {
    if (const auto* most = accept_most_cpu(call, *facts, whose))
      answer_comparison(call, *most, wish, *facts);
  });
}

void serve_baseline_cpu(control_call call, xdr_reader& args) {
  auto wish = read_baseline(call, args);
  if (!wish)
    return;
  if (std::ranges::any_of(wish->cpus, &cpu_text::of_guest))
    return call.refuse({errc::bad_xml, "Missing CPU architecture: a baseline is made of hosts' CPUs, with <arch>"});
  with_main_emulator(call, [call, wish = std::move(*wish)](const emulator_facts& facts) {
    if (accept_comparing(call, facts))
      answer_baseline(call, wish, facts, wish.cpus.size() == 1 ? "forbid" : "allow");
  });
}

void serve_baseline_hypervisor_cpu(control_call call, xdr_reader& args) {
  const auto whose = read_wish(args);
  auto wish = read_baseline(call, args);
  if (!wish)
    return;
  with_emulator(call, whose, [call, whose, wish = std::move(*wish)](const emulator_facts_ptr& facts) {
    auto within = wish;
    within.options.within = accept_most_cpu(call, *facts, whose);
    if (within.options.within)
      answer_baseline(call, within, *facts, "forbid");
  });
}

} // namespace troupe
