#pragma once

#include "runtime/error.hpp"
#include "xml/domain.hpp"
#include "xml/domain_passes.hpp"
#include "xml/emulator_facts.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// A definition made from a command line.
struct imported_domain {
  domain guest;                   ///< Not completed yet.
  std::vector<std::string> notes; ///< What was kept as it is, replaced or left out, and why: for people.
};

/// The program that the command line runs: whose facts `domain_from_argv` wants. Errors: bad_argument.
result<std::string> emulator_of_argv(std::string_view text);

/// Reads QEMU's command line, as a shell would be given it, back into a definition. What domain XML has no words for
/// goes into
/// `<qemu:commandline>`, whole options at a time, and is noted. `facts`: of the emulator, null when it is not known
/// here. Errors: bad_argument, naming the option, its value and what is accepted.
result<imported_domain> domain_from_argv(std::string_view text, const emulator_facts* facts);

/// Makes it whole, as at `define`, but for the machine's name, which only `define` makes one of a release.
/// Errors: as `complete_definition`.
result<void> complete_imported(imported_domain& imported, const emulator_facts& facts, const random_source& random);

/// The definition as XML, with the notes as comments ahead of it.
std::string imported_xml(const imported_domain& imported);

} // namespace troupe
