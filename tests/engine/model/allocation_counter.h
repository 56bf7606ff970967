// How often this program has allocated, on whatever thread: linking allocation_counter.cc replaces
// the global operator new by one that counts.
// Thread rule: any thread.
#pragma once

#include <cstdint>

namespace fastgen::testing {

int64_t NumAllocations();

}  // namespace fastgen::testing
