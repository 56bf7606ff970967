#include "server/gateway/daemon_picker.h"

#include <algorithm>
#include <cmath>

namespace fastgen::gateway {

std::optional<size_t> DaemonPicker::Pick(const std::vector<Candidate>& candidates,
                                         const PrefixHashes& prefix) {
  Candidate::Use best = Candidate::Use::kNever;
  for (const Candidate& candidate : candidates) best = std::max(best, candidate.use);
  if (best == Candidate::Use::kNever) return std::nullopt;
  std::vector<size_t> usable;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].use == best) usable.push_back(i);
  }
  if (prefix.empty()) return PickLeastLoaded(candidates, usable);
  const size_t picked = PickByPrefix(candidates, usable, prefix);
  Remember(prefix, picked);
  return picked;
}

size_t DaemonPicker::PickByPrefix(const std::vector<Candidate>& candidates,
                                  const std::vector<size_t>& usable, const PrefixHashes& prefix) {
  int64_t total = 1;  // the request itself
  for (size_t i : usable) total += candidates[i].load;
  const double mean = static_cast<double>(total) / static_cast<double>(usable.size());
  const auto bound = static_cast<int64_t>(std::ceil(options_.load_bound * mean)) + options_.slack;
  bool passed_over = false;
  for (size_t i = prefix.size(); i-- > 1;) {
    const auto found = remembered_.find(prefix[i]);
    if (found == remembered_.end()) continue;
    const size_t daemon = found->second;
    if (std::find(usable.begin(), usable.end(), daemon) == usable.end()) continue;
    if (candidates[daemon].load < bound) return daemon;
    passed_over = true;
  }
  std::optional<size_t> first, fitting;
  const auto score = [&](size_t i) { return Mix(prefix[0] ^ candidates[i].name_hash); };
  for (size_t i : usable) {
    if (!first.has_value() || score(i) > score(*first)) first = i;
    if (candidates[i].load >= bound) continue;
    if (!fitting.has_value() || score(i) > score(*fitting)) fitting = i;
  }
  if (passed_over || fitting != first) ++num_spills_;
  return fitting.has_value() ? *fitting : PickLeastLoaded(candidates, usable);
}

size_t DaemonPicker::PickLeastLoaded(const std::vector<Candidate>& candidates,
                                     const std::vector<size_t>& usable) {
  const uint64_t turn = turn_++;
  size_t best = usable[turn % usable.size()];
  for (size_t k = 1; k < usable.size(); ++k) {
    const size_t i = usable[(turn + k) % usable.size()];
    if (candidates[i].load < candidates[best].load) best = i;
  }
  return best;
}

void DaemonPicker::Remember(const PrefixHashes& prefix, size_t daemon) {
  for (size_t i = 1; i < prefix.size(); ++i) {
    const auto [entry, is_new] = remembered_.try_emplace(prefix[i], daemon);
    entry->second = daemon;
    if (!is_new) continue;
    order_.push_back(prefix[i]);
    if (order_.size() <= options_.max_remembered) continue;
    remembered_.erase(order_.front());
    order_.pop_front();
  }
}

}  // namespace fastgen::gateway
