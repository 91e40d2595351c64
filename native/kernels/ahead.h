// Weights of one token, and its cache, stream through once: they are fetched this far ahead of their use.
#pragma once

#include <cstddef>

namespace lavolta {
namespace {

constexpr size_t kTokenAheadBytes = 2048;

// What Bytes from `values` on are for a later step.
template <size_t Bytes>
inline __attribute__((always_inline)) void fetch_ahead(const void* values) {
    const char* const at = static_cast<const char*>(values) + kTokenAheadBytes;
#pragma GCC unroll 16
    for (size_t line = 0; line < Bytes; line += 64) __builtin_prefetch(at + line);
}

}  // namespace
}  // namespace lavolta
