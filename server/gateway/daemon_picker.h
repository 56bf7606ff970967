// DaemonPicker: which daemon of a fleet a request goes to.
//
// Affinity: a prompt's first hash orders all daemons by rendezvous hashing (the highest
// mix(hash ^ name_hash) first), so that the same beginning has the same order in every gateway, and
// a daemon that comes or goes moves about 1/n of the beginnings. Longer beginnings are remembered:
// a conversation stays where its earlier turns ran, also when that was not its first choice. Bound
// ("Consistent Hashing with Bounded Loads", Mirrokni, Thorup, Zadimoghaddam 2016): a daemon is
// passed over while its load is at least ceil(load_bound * (total + 1) / n) + slack, so that a
// beginning which everybody has does not crush one daemon. Prompts too short to gain go to the
// least loaded, in turn where several are.
// Invariants: 1. what is kNever is never picked, kLastResort only when nothing is kUsable; 2. the
// load of the picked one is below the bound, or the lowest.
// Pure: no clock, no gRPC; equal calls in equal order give equal picks.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/daemon_picker_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "server/gateway/prompt_prefix.h"

namespace fastgen::gateway {

struct PickerOptions {
  double load_bound = 1.25;  // times the mean load
  int32_t slack = 2;         // requests above that
  size_t max_remembered = 64 << 10;
};

// A daemon as the picker sees it. Its place in the list is its number.
struct Candidate {
  enum class Use { kNever, kLastResort, kUsable };
  uint64_t name_hash = 0;
  int32_t load = 0;
  Use use = Use::kUsable;
};

class DaemonPicker {
 public:
  explicit DaemonPicker(const PickerOptions& options) : options_(options) {}

  // The number of a daemon; nullopt when all are kNever.
  std::optional<size_t> Pick(const std::vector<Candidate>& candidates, const PrefixHashes& prefix);

  // Requests that their load's bound kept from the daemon that has their beginning.
  int64_t num_spills() const { return num_spills_; }

 private:
  size_t PickByPrefix(const std::vector<Candidate>& candidates, const std::vector<size_t>& usable,
                      const PrefixHashes& prefix);
  size_t PickLeastLoaded(const std::vector<Candidate>& candidates,
                         const std::vector<size_t>& usable);
  void Remember(const PrefixHashes& prefix, size_t daemon);

  const PickerOptions options_;
  // By hash of a longer beginning; bounded, the oldest goes first.
  std::unordered_map<uint64_t, size_t> remembered_;
  std::deque<uint64_t> order_;
  uint64_t turn_ = 0;
  int64_t num_spills_ = 0;
};

}  // namespace fastgen::gateway
