#pragma once

#include "runtime/error.hpp"
#include "runtime/paths.hpp"
#include "runtime/settings.hpp"

#include <functional>
#include <memory>
#include <string>

namespace troupe {

struct company_setup {
  instance_paths paths;
  qemu_settings settings;
  std::string launcher; ///< Path of troupe-launch.
};

/// One daemon's actors and what they stand on: the event loop, the ledger, the sockets. A process may have several, each
/// with paths of its own. No CAF type shows here.
class company {
public:
  /// Makes the directories, opens the ledger, takes up the guests that run and listens. Blocks until it serves clients.
  /// Errors: busy when another daemon has these paths; system; what the ledger and the settings report.
  static result<std::unique_ptr<company>> start(company_setup setup);

  /// Ends all actors and lets go of the sockets. Guests run on.
  ~company();
  company(const company&) = delete;
  company& operator=(const company&) = delete;

  /// Whether no client is connected and no guest is active. Any thread but the loop's. Blocks shortly.
  bool is_idle() const;

  /// Called, from some thread, when an actor that all others need has failed: only a new daemon helps, and it takes up
  /// every guest. Without it the process aborts.
  void on_failure(std::function<void(std::string)> call);

private:
  struct members;
  explicit company(std::unique_ptr<members> m);
  std::unique_ptr<members> m_;
};

} // namespace troupe
