#include "actors/messages.hpp"

#include "actors/interfaces.hpp"
#include "runtime/ledger.hpp"

namespace troupe {

std::string to_string(errc code) {
  return row_of(code).text;
}

caf::error to_caf(error why) {
  return caf::make_error(why.code, std::move(why.detail));
}

error from_caf(const caf::error& why) {
  if (why.category() == caf::detail::error_factory<errc>::category) {
    error out{static_cast<errc>(why.code()), {}};
    if (why.context().match_elements<std::string>())
      out.detail = why.context().get_as<std::string>(0);
    return out;
  }
  if (why == caf::sec::request_timeout)
    return {errc::timed_out, "no answer in time; the work may still be under way"};
  return {errc::internal, "the actor asked did not answer: " + caf::to_string(why)};
}

} // namespace troupe
