#pragma once

#include "actors/messages.hpp"

#include <caf/all.hpp>

#include <functional>
#include <memory>
#include <utility>

namespace troupe {

/// Turns `then` into a callback for libuv's side and for workers: called anywhere, it runs inside `self`, as a message
/// of its own, and not at all when `self` has ended by then. `then` may hold what `self` owns.
template <class Actor, class... Ts, class Then>
std::function<void(Ts...)> inside_as(typename Actor::pointer self, Then then) {
  const auto weak = caf::actor_cast<caf::weak_actor_ptr>(self);
  return [weak, then = std::move(then)](Ts... xs) {
    const auto alive = caf::actor_cast<caf::strong_actor_ptr>(weak);
    if (!alive)
      return;
    // Answers may own what cannot be copied; a std::function must be.
    auto boxed = std::make_shared<std::tuple<Ts...>>(std::move(xs)...);
    caf::anon_send(caf::actor_cast<Actor>(alive), completion{[then, boxed]() mutable {
                     std::apply([&](auto&... ys) { then(std::move(ys)...); }, *boxed);
                   }});
  };
}

} // namespace troupe
