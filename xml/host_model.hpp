#pragma once

#include "xml/domain.hpp"
#include "xml/emulator_facts.hpp"

namespace troupe {

/// Gives a guest that asks for the host's model a model of that name, with the features that differ and its own wishes
/// beside them: what it needs on another host. What keeps a guest on its host is not among them
/// unless it is wished for. Nothing changes where QEMU does not tell CPUs by their features.
/// Source: virsh dumpxml --update-cpu.
void name_host_model(domain& guest, const emulator_facts& facts);

} // namespace troupe
