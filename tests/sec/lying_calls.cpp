// Preloaded into troupe-launch by its test: the call that TROUPE_LIE names says that it was done, and does nothing. So
// the launcher is seen to believe the kernel rather than its calls.

#include <cap-ng.h>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

bool lies(const char* call) {
  const char* about = std::getenv("TROUPE_LIE");
  return about != nullptr && std::strcmp(about, call) == 0;
}

template <class Function>
Function real(const char* call) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, call));
}

} // namespace

extern "C" {

int setgroups(std::size_t count, const gid_t* groups) noexcept {
  return lies("setgroups") ? 0 : real<int (*)(std::size_t, const gid_t*)>("setgroups")(count, groups);
}

int setresgid(gid_t a, gid_t b, gid_t c) noexcept {
  return lies("setresgid") ? 0 : real<int (*)(gid_t, gid_t, gid_t)>("setresgid")(a, b, c);
}

int setresuid(uid_t a, uid_t b, uid_t c) noexcept {
  return lies("setresuid") ? 0 : real<int (*)(uid_t, uid_t, uid_t)>("setresuid")(a, b, c);
}

int setrlimit(__rlimit_resource_t which, const rlimit* value) noexcept {
  return lies("setrlimit") ? 0 : real<int (*)(__rlimit_resource_t, const rlimit*)>("setrlimit")(which, value);
}

mode_t umask(mode_t mask) noexcept {
  return lies("umask") ? 0 : real<mode_t (*)(mode_t)>("umask")(mask);
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
  return lies("close_range") ? 0 : real<int (*)(unsigned, unsigned, int)>("close_range")(first, last, flags);
}

int prctl(int what, ...) noexcept {
  std::va_list words;
  va_start(words, what);
  unsigned long arguments[4];
  for (auto& each : arguments)
    each = va_arg(words, unsigned long);
  va_end(words);
  if (what == PR_SET_NO_NEW_PRIVS && lies("prctl"))
    return 0;
  return real<int (*)(int, ...)>("prctl")(what, arguments[0], arguments[1], arguments[2], arguments[3]);
}

int capng_apply(capng_select_t set) {
  const bool bounds = set == CAPNG_SELECT_BOUNDS;
  return lies(bounds ? "capng_apply bounds" : "capng_apply") ? 0 : real<int (*)(capng_select_t)>("capng_apply")(set);
}
}
