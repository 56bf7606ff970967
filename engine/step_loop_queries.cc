// What StepLoop answers between steps: dry runs, lists, pauses, flushes.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "engine/check_request.h"
#include "engine/choice_id.h"
#include "engine/step_loop.h"

namespace fastgen {

void StepLoop::Apply(PlanQuery query) {
  answers_.push_back([done = std::move(query.done), info = MakePlanInfo(query)] { done(info); });
}

PlanInfo StepLoop::MakePlanInfo(const PlanQuery& query) const {
  PlanInfo info;
  info.prompt_tokens = static_cast<int32_t>(query.prompt.size());
  const absl::Status status =
      queue_->CheckPush(query.request_id, {info.prompt_tokens, query.priority});
  info.fits = status.ok();
  info.reason = std::string(FromAbsl(status.message()));
  if (!failure_.empty()) return info;
  const int64_t now_us = NowUs();
  const CachedPrefix cached = FindCached(query.prompt, query.cache_salt, query.scores_prompt);
  const Outlook outlook = LookAhead(info.prompt_tokens, cached, query.priority, now_us);
  info.cached_tokens_device = cached.num_device_tokens;
  info.cached_tokens_host = cached.num_host_tokens;
  info.queue_position = outlook.ahead.num_sequences;
  const StepCost& cost = scheduler_.step_cost();
  info.estimated_ttft = absl::Microseconds(outlook.first_token_us + cost.typical_step_us());
  if (info.fits && query.deadline_us != kNoDeadline) {
    const bool is_stale = scheduler_.idle() && now_us - last_step_us_ > kStaleAfterUs;
    const int64_t first_token_us = is_stale ? 0 : outlook.first_token_us;
    const absl::Status in_time =
        CheckDeadline(query.deadline_us, now_us, first_token_us, options_, cost);
    info.fits = in_time.ok();
    info.reason = std::string(FromAbsl(in_time.message()));
  }
  return info;
}

void StepLoop::Apply(ListQuery query) {
  std::vector<SequenceView> views;
  scheduler_.List(&views);
  const absl::Time now = clock_->Now();
  absl::flat_hash_map<SequenceId, RequestInfo> infos;
  for (const SequenceView& view : views) {
    const auto it = requests_.find(LeaderOf(view.id));
    // One that ended with commands applied just before is not told yet.
    if (it == requests_.end()) continue;
    const auto [entry, is_new] = infos.try_emplace(LeaderOf(view.id));
    RequestInfo& info = entry->second;
    if (is_new) {
      info.request_id = it->second.request_id;
      info.prompt_tokens = it->second.place.num_prompt_tokens;
      info.priority = it->second.place.priority;
      info.age = std::max(now - it->second.submitted, absl::ZeroDuration());
    }
    info.output_tokens += view.num_output;
    // As far as its furthest choice.
    info.phase = std::max(info.phase, static_cast<RequestInfo::Phase>(view.phase));
  }
  std::vector<std::pair<SequenceId, RequestInfo>> sorted(infos.begin(), infos.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<RequestInfo> list;
  list.reserve(sorted.size());
  for (auto& [leader, info] : sorted) list.push_back(std::move(info));
  answers_.push_back([done = std::move(query.done), list = std::move(list)] { done(list); });
}

void StepLoop::Apply(PauseQuery query) {
  // What drains has to run on.
  if (!queue_->draining()) paused_ = true;
  pauses_.push_back(std::move(query.done));
}

void StepLoop::Apply(const ResumeCommand& command) {
  paused_ = false;
  // Nobody waits for a pause that is over.
  std::move(pauses_.begin(), pauses_.end(), std::back_inserter(answers_));
  pauses_.clear();
}

void StepLoop::Apply(FlushQuery query) {
  const int32_t num_blocks = failure_.empty() ? scheduler_.FlushPrefixCache() : 0;
  answers_.push_back([done = std::move(query.done), num_blocks] { done(num_blocks); });
}

}  // namespace fastgen
