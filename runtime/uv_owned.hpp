#pragma once

#include <memory>
#include <uv.h>

namespace troupe {

/// Closes an initialised handle and deletes it one loop turn later. Loop thread only.
struct uv_close_later {
  template <class Handle>
  void operator()(Handle* handle) const noexcept {
    handle->data = nullptr; // a late callback finds no owner rather than a dead one
    uv_close(reinterpret_cast<uv_handle_t*>(handle),
             [](uv_handle_t* closed) { delete reinterpret_cast<Handle*>(closed); });
  }
};

template <class Handle>
using uv_owned = std::unique_ptr<Handle, uv_close_later>;

} // namespace troupe
