#pragma once

#include "runtime/error.hpp"

namespace troupe {

/// Refuses, to the calling thread and all that it starts, for good, system calls that no QEMU makes and that need no
/// capability: namespaces and mounts, keys, BPF, tracing and reading others' memory, other processes' limits, and signals
/// to anybody but this process, whose id exec keeps. QEMU's own filter (-sandbox) comes on top.
/// Needs no_new_privs, or CAP_SYS_ADMIN. Errors: operation_failed, unsupported_operation (this kind of CPU).
/// Source: seccomp(2).
result<void> enter_call_filter();

} // namespace troupe
