#include "actors/varlink_connection.hpp"
#include "xml/domain_passes.hpp"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <iterator>
#include <set>

// What `troupe check` asks: a guest's definition is made whole as a start would make it, and each path that its QEMU will
// use is looked at by a worker of its own, so that one on a mount that hangs costs the others nothing.

namespace troupe {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto look_up_limit = 5s;
constexpr auto facts_limit = 10s; // the definition is checked as it stands when the emulator does not answer
/// So many paths are looked at at a time: other guests need workers, too.
constexpr std::size_t most_at_a_time = 4;

class guest_check : public std::enable_shared_from_this<guest_check> {
public:
  explicit guest_check(varlink_request request) : request_{std::move(request)}, self_{request_.client->self()} {}

  void begin(const std::string& guest) {
    self_->delayed_send(self_, around().check_within, completion{[check = shared_from_this()] { check->give_up(); }});
    find({find_guest::key::name, guest, -1}, [guest, check = shared_from_this()](error why) {
      check->find({find_guest::key::uuid, guest, -1}, [check, why](error) { check->refuse(why); });
    });
  }

private:
  const control_surroundings& around() const { return request_.client->around(); }

  template <class T>
  std::function<void(result<T>)> here(std::function<void(result<T>)> then) {
    return inside_as<varlink_actor, result<T>>(self_, [check = shared_from_this(), then = std::move(then)](result<T> x) {
      if (!check->done_)
        then(std::move(x));
    });
  }

  void refuse(const error& why) {
    if (!std::exchange(done_, true))
      request_.refuse(why);
  }

  void find(find_guest wish, std::function<void(error)> otherwise) {
    self_->request(around().driver, look_up_limit, std::move(wish))
      .then([check = shared_from_this()](guest_entry& found) { check->found(*found.view); },
            [otherwise = std::move(otherwise)](caf::error& why) { otherwise(from_caf(why)); });
  }

  void found(const guest_view& view) {
    name_ = view.ref.name;
    const auto& shown = view.live ? view.live : view.config;
    if (!shown)
      return refuse({errc::wrong_state, fmt::format("guest '{}' has no definition", name_)});
    guest_ = std::make_shared<domain>(*shown);
    if (view.live)
      return resolve();
    self_->request(around().prober, facts_limit, emulator_wanted{guest_->devices.emulator})
      .then(
        [check = shared_from_this()](emulator_facts_ptr& facts) {
          auto whole = std::make_shared<domain>(*check->guest_);
          if (complete_definition(*whole, *facts, [&] { return check->around().machine->random_bytes(); }))
            check->guest_ = std::move(whole); // what is wrong with a definition is not asked here
          check->resolve();
        },
        [check = shared_from_this()](caf::error&) { check->resolve(); });
  }

  void resolve() {
    assign_aliases(*guest_);
    wish_.who = around().guest_user;
    const auto* label = static_dac_label(*guest_);
    relabel_ = around().gives_owners && (label == nullptr || label->relabel);
    if (label == nullptr || label->label.empty() || !around().changes_user)
      return find_parts();
    const auto colon = label->label.find(':');
    around().machine->resolve(label->label.substr(0, colon),
                              colon == std::string::npos ? std::string{} : label->label.substr(colon + 1),
                              here<dac_identity>([this](result<dac_identity> who) {
                                if (!who)
                                  return refuse({who.error().code, fmt::format("guest '{}': DAC label: {}", name_, who.error().detail)});
                                wish_.who = std::move(*who);
                                find_parts();
                              }));
  }

  void find_parts() {
    auto images = chains_of(*guest_);
    if (images.empty())
      return list({});
    around().machine->find_image_parts(std::move(images), here<std::vector<resource>>([this](result<std::vector<resource>> parts) {
                                         if (!parts)
                                           tell({.path = {}, .layer = "file", .denied = "read", .why = parts.error().message(),
                                                 .remedy = "see why the images of the guest cannot be read"},
                                                "");
                                         list(parts ? std::move(*parts) : std::vector<resource>{});
                                       }));
  }

  void list(std::vector<resource> parts) {
    auto needs = needs_of(*guest_);
    std::ranges::move(parts, std::back_inserter(needs));
    const auto made = made_by_qemu(*guest_, {});
    const auto& paths = around().around->paths;
    if (around().around->landlock)
      wish_.landlock = landlock_rules({.emulator = guest_->devices.emulator,
                                       .run_dir = paths.guest_run_dir(name_),
                                       .resources = needs,
                                       .makes = made,
                                       .words = guest_->qemu.args});
    wish_.limited = !around().around->control_groups.empty();
    uses_.push_back({{.path = guest_->devices.emulator, .execute = true}});
    // The directory of its sockets is made for it; it has to get there.
    uses_.push_back({{.path = paths.guest_runs, .read = false, .execute = true}});
    if (guest_->type == virt_type::kvm)
      uses_.push_back({{.path = "/dev/kvm", .write = true}});
    for (const auto& need : needs) {
      const bool socket = need.what == resource::kind::socket;
      planned use;
      use.what = {.path = need.path,
                  .read = !socket,
                  .write = !need.readonly,
                  .execute = need.what == resource::kind::directory,
                  .given = relabel_ && need.relabel && own_label(need, "dac") == nullptr};
      use.granted = true;
      use.create = need.create;
      uses_.push_back(std::move(use));
    }
    for (const auto& path : made)
      uses_.push_back({{.path = path, .read = false, .make = true}});
    std::erase_if(uses_, [](const auto& use) { return !use.what.path.starts_with('/'); });
    for (const auto& use : uses_)
      left_.insert(use.what.path);
    look_on();
  }

  void look_on() {
    while (!uses_.empty() && looking_ < most_at_a_time) {
      auto use = std::move(uses_.front());
      uses_.pop_front();
      ++looking_;
      auto wish = wish_;
      wish.use = use.what;
      wish.granted = use.granted;
      around().machine->foresee(std::move(wish), here<std::vector<denial>>([this, use](result<std::vector<denial>> foreseen) {
                                  --looking_;
                                  left_.erase(use.what.path);
                                  looked_at_.push_back(use.what.path);
                                  if (!foreseen)
                                    tell(unseen(use.what.path, foreseen.error().message()), use.what.path);
                                  else
                                    for (auto& each : *foreseen)
                                      if (!use.create || each.denied != "find" || each.path != use.what.path)
                                        tell(std::move(each), use.what.path);
                                  look_on();
                                }));
    }
    if (uses_.empty() && looking_ == 0)
      answer();
  }

  static denial unseen(std::string path, std::string why) {
    return {.path = std::move(path), .layer = "file", .denied = "find", .why = std::move(why),
            .remedy = "see whether the server or device behind it answers"};
  }

  void tell(denial what, const std::string& use) {
    denials_.push_back({{"path", what.path},
                        {"use", use},
                        {"layer", what.layer},
                        {"denied", what.denied},
                        {"why", what.why},
                        {"remedy", what.remedy}});
  }

  /// The answer has to come: what has not been seen by now is told as such.
  void give_up() {
    if (done_)
      return;
    if (!guest_)
      return refuse({errc::timed_out, "the guest's definition was not found in time"});
    for (const auto& path : left_)
      tell(unseen(path, fmt::format("'{}' was not seen within {} ms", path, around().check_within.count())), path);
    answer();
  }

  void answer() {
    if (std::exchange(done_, true))
      return;
    request_.answer({{"guest", name_},
                     {"user", fmt::format("+{}:+{}", wish_.who.uid, wish_.who.gid)},
                     {"looked_at", looked_at_},
                     {"denials", denials_}});
  }

  struct planned {
    foreseen_use what{};
    bool granted = false; ///< The start puts its device on the control group's list.
    bool create = false;  ///< The start makes it when it is not there.
  };

  varlink_request request_;
  varlink_data::pointer self_;
  bool done_ = false;
  std::string name_;
  std::shared_ptr<domain> guest_;
  bool relabel_ = false;
  host::foreseen_wish wish_;
  std::deque<planned> uses_;
  std::set<std::string> left_;
  std::size_t looking_ = 0;
  std::vector<std::string> looked_at_;
  json denials_ = json::array();
};

} // namespace

void serve_check(varlink_request request) {
  const auto guest = request.parameters.find("guest");
  if (guest == request.parameters.end() || !guest->is_string())
    return request.refuse("InvalidParameter", {{"parameter", "guest"}});
  const auto name = guest->get<std::string>();
  std::make_shared<guest_check>(std::move(request))->begin(name);
}

} // namespace troupe
