#include "tests/engine/schedule/script_runner.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>
#include <vector>

namespace fastgen::testing {
namespace {

std::string Join(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += " " + std::to_string(id);
  return text;
}

std::string Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

FinishReason ReasonNamed(const std::string& name) {
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength,
                                    FinishReason::kCancelled, FinishReason::kDeadline}) {
    if (Name(reason) == name) return reason;
  }
  return FinishReason::kError;
}

// ", N words" where there are any.
std::string Some(int64_t count, const char* words) {
  return count == 0 ? "" : ", " + std::to_string(count) + " " + words;
}

std::string Print(const FinishedSequence& finished) {
  std::ostringstream out;
  out << "finished " << finished.id << ": " << Name(finished.reason);
  if (finished.matched_token_id.has_value()) out << " on " << *finished.matched_token_id;
  if (finished.is_nan) out << " nan";
  out << ", prompt " << finished.prompt_tokens;
  if (finished.cached_tokens > 0) out << " (" << finished.cached_tokens << " cached)";
  out << ", output " << finished.output_tokens << ", chunks " << finished.num_chunks << ", steps "
      << finished.num_steps << ", preemptions " << finished.num_preemptions;
  if (finished.num_page_ins > 0) out << ", page_ins " << finished.num_page_ins;
  out << "\n";
  return out.str();
}

std::string PrintAll(const std::vector<FinishedSequence>& finished) {
  std::string text;
  for (const FinishedSequence& one : finished) text += Print(one);
  return text;
}

std::string PrintMoves(const char* name, const std::vector<KvBlockMove>& moves) {
  if (moves.empty()) return "";
  std::ostringstream out;
  out << "  " << name;
  for (const KvBlockMove& move : moves) out << " " << move.from << ">" << move.to;
  out << "\n";
  return out.str();
}

// Its tokens; "?2" is what row 2 of the step before samples.
std::string PrintTokens(const ScheduledSequence& row) {
  if (row.tokens.size() == 1 && row.tokens[0] == kPendingToken) {
    return " ?" + std::to_string(row.token_row);
  }
  return Join(row.tokens);
}

std::string Print(const ScheduledSequence& row) {
  std::ostringstream out;
  out << "  " << row.id << ": " << (row.is_decode() ? "decode" : "chunk") << " ["
      << row.context_begin << "," << row.context_begin + row.tokens.size() << ")"
      << PrintTokens(row) << " | blocks" << Join(row.block_table);
  if (!row.score_targets.empty()) out << " | scores" << Join(row.score_targets);
  if (row.samples) out << " | samples #" << row.output_position;
  if (row.sampling.choice_index > 0) out << " | choice " << row.sampling.choice_index;
  if (!row.banned_tokens.empty()) out << " | bans" << Join(row.banned_tokens);
  if (row.starts_history) out << " | history" << Join(row.history) << " / " << row.num_prompt;
  return out.str();
}

std::string Print(const CommitResult::Output& output) {
  std::ostringstream out;
  out << output.id << ":";
  if (output.token.token >= 0) out << " token " << output.token.token;
  if (!output.scored.empty()) {
    out << " scored";
    for (const TokenScore& score : output.scored) out << " " << score.token;
  }
  if (output.first_chunk) out << " first_chunk";
  if (output.first_chunk && output.cached_tokens > 0) out << " cached " << output.cached_tokens;
  if (output.prefilled) out << " prefilled";
  return out.str();
}

}  // namespace

std::string ScriptRunner::Run(const ScriptCommand& command) {
  const std::string answer = Dispatch(command);
  scheduler_->CheckInvariants();
  for (const std::string& key : command.UnusedKeys()) {
    // What rows sample is named by sequence, whether it has a row or not.
    if (command.verb() == "step" || command.verb() == "commit") continue;
    throw std::invalid_argument(command.verb() + " has no " + key);
  }
  return answer;
}

std::string ScriptRunner::Dispatch(const ScriptCommand& command) {
  const std::string& verb = command.verb();
  if (verb == "new") return New(command);
  if (scheduler_ == nullptr) throw std::invalid_argument("a script begins with new");
  if (verb == "add") return Add(command);
  if (verb == "plan") return Plan();
  if (verb == "commit") return Commit(command);
  if (verb == "step") {
    if (!in_flight_.empty()) throw std::invalid_argument("step: a plan is in flight, commit it");
    const std::string planned = Plan();
    return in_flight_.empty() ? planned : planned + Commit(command);
  }
  if (verb == "cancel" || verb == "finish_at") return End(command);
  if (verb == "expire") return Expire(command);
  if (verb == "end_all") return EndAll(command);
  if (verb == "list") return List();
  if (verb == "stats") return Stats();
  return Ask(command);
}

std::string ScriptRunner::New(const ScriptCommand& command) {
  options_ = SchedulerOptions();
  options_.max_num_seqs = command.Int("max_num_seqs", 4);
  options_.max_num_batched_tokens = command.Int("max_num_batched_tokens", 16);
  options_.max_model_len = command.Int("max_model_len", 64);
  options_.block_size = command.Int("block_size", 4);
  options_.num_blocks = command.Int("num_blocks", 32);
  options_.max_steps_in_flight = command.Int("max_steps_in_flight", 1);
  options_.prefix_cache = command.Int("prefix_cache", 0) != 0;
  options_.num_host_blocks = command.Int("num_host_blocks", 0);
  options_.host_chunk_tokens = command.Int("host_chunk_tokens", 2 * options_.block_size);
  options_.ageing_us = command.Number("ageing_us", 1'000'000);
  options_.deadline_margin_us = command.Number("deadline_margin_us", 0);
  options_.page_us_per_token = command.Real("page_us", 0);
  const std::string shows = command.Text("show", "");
  shows_slots_ = shows.find("slots") != std::string::npos;
  shows_computed_ = shows.find("computed") != std::string::npos;
  options_.poison_freed_blocks = shows.find("poison") != std::string::npos;
  in_flight_.clear();
  scheduler_ = std::make_unique<Scheduler>(options_);
  return "ok\n";
}

std::string ScriptRunner::Add(const ScriptCommand& command) {
  NewSequence added;
  added.id = command.Number("id", 0);
  added.prompt = command.Prompt("prompt", command.Number("id", 0));
  added.stop.max_output_tokens = command.Int("max", 8);
  added.stop.min_output_tokens = command.Int("min", 0);
  added.stop.stop_token_ids = command.Ids("stop");
  added.sampling.num_prompt_top_logprobs = command.Int("score", -1);
  added.sampling.choice_index = command.Int("choice", 0);
  added.sampling.presence_penalty = static_cast<float>(command.Real("penalty", 0));
  added.priority = command.Int("priority", 0);
  added.arrival_us = command.Number("arrival", 0);
  added.deadline_us = command.Number("deadline", kNoDeadline);
  added.cache_salt = command.Text("salt", "");
  added.leader = command.Number("leader", 0);
  added.may_be_cut = command.Int("cut", 0) != 0;
  scheduler_->Add(std::move(added));
  return "ok\n";
}

std::string ScriptRunner::Plan() {
  StepPlan plan;
  scheduler_->PlanStep(&plan);
  if (plan.empty()) return "nothing\n";
  std::ostringstream out;
  out << "step " << plan.step << ", " << plan.num_tokens << " tokens\n";
  out << PrintMoves("page_out", plan.page_outs) << PrintMoves("swap_out", plan.swap_outs);
  if (!plan.poisoned_blocks.empty()) out << "  poison" << Join(plan.poisoned_blocks) << "\n";
  out << PrintMoves("page_in", plan.page_ins) << PrintMoves("copy", plan.copies);
  for (const ScheduledSequence& row : plan.sequences) {
    out << Print(row);
    if (shows_slots_) out << " | slot " << row.slot;
    out << "\n";
  }
  in_flight_.push_back(std::move(plan));
  return out.str();
}

std::string ScriptRunner::Commit(const ScriptCommand& command) {
  if (in_flight_.empty()) throw std::invalid_argument("commit: no plan is in flight");
  const StepPlan plan = std::move(in_flight_.front());
  in_flight_.pop_front();
  StepResult result;
  for (const ScheduledSequence& row : plan.sequences) {
    SequenceResult& row_result = result.sequences.emplace_back();
    const int64_t token = static_cast<int64_t>(row.id) * 100 + 50 + row.output_position;
    const std::string named = command.Text(std::to_string(row.id), std::to_string(token));
    row_result.is_nan = named == "nan";
    row_result.sampled = row.samples;
    if (!row_result.is_nan) row_result.next.token = std::stoi(named);
    for (const int32_t target : row.score_targets) {
      row_result.scored.emplace_back().token = target;
    }
  }
  scheduler_->CommitStep(plan, result, &commit_);
  std::ostringstream out;
  for (const CommitResult::Output& output : commit_.outputs) {
    out << Print(output);
    if (shows_computed_) out << " | computed " << output.num_computed;
    out << "\n";
  }
  return out.str() + PrintAll(commit_.finished);
}

std::string ScriptRunner::End(const ScriptCommand& command) {
  FinishedSequence finished;
  const SequenceId id = command.Number("id", 0);
  const bool was_live =
      command.verb() == "cancel"
          ? scheduler_->Cancel(id, ReasonNamed(command.Text("reason", "cancelled")), &finished)
          : scheduler_->FinishAt(id, command.Int("output", 0), &finished);
  return was_live ? Print(finished) : "not live\n";
}

std::string ScriptRunner::Expire(const ScriptCommand& command) {
  std::vector<FinishedSequence> expired;
  scheduler_->Expire(command.Number("now", 0), &expired);
  const int64_t next = scheduler_->next_expiry_us();
  return PrintAll(expired) +
         (next == kNoDeadline ? "no deadline\n" : "next at " + std::to_string(next) + "\n");
}

std::string ScriptRunner::EndAll(const ScriptCommand& command) {
  std::vector<FinishedSequence> finished;
  scheduler_->EndAll(ReasonNamed(command.Text("reason", "error")), &finished);
  in_flight_.clear();
  return PrintAll(finished);
}

std::string ScriptRunner::Ask(const ScriptCommand& command) {
  std::ostringstream out;
  if (command.verb() == "observe") {
    scheduler_->ObserveStep(command.Int("tokens", 1), command.Number("us", 0));
    const StepCost& cost = scheduler_->step_cost();
    out << std::llround(cost.base_us()) << " us a step, " << std::llround(cost.us_per_token())
        << " us a token\n";
  } else if (command.verb() == "flush") {
    out << scheduler_->FlushPrefixCache() << " blocks\n";
  } else if (command.verb() == "lookup") {
    const CachedPrefix cached = scheduler_->Lookup(
        command.Prompt("prompt", command.Number("id", 0)), command.Text("salt", ""));
    out << cached.num_device_tokens << " tokens on the device, " << cached.num_host_tokens
        << " on the host\n";
  } else if (command.verb() == "ahead") {
    const QueueAhead ahead =
        scheduler_->Ahead(command.Int("priority", 0), command.Number("now", 0));
    out << ahead.num_sequences << " sequences, " << ahead.num_tokens << " tokens\n";
  } else {
    throw std::invalid_argument("unknown command: " + command.verb());
  }
  return out.str();
}

std::string ScriptRunner::List() const {
  std::vector<SequenceView> views;
  scheduler_->List(&views);
  std::sort(views.begin(), views.end(),
            [](const SequenceView& a, const SequenceView& b) { return a.id < b.id; });
  std::ostringstream out;
  for (const SequenceView& view : views) {
    out << view.id << ": "
        << (view.phase == SequenceView::Phase::kQueued    ? "queued"
            : view.phase == SequenceView::Phase::kPrefill ? "prefill"
                                                          : "decode")
        << ", output " << view.num_output << "\n";
  }
  return out.str();
}

std::string ScriptRunner::Stats() const {
  const SchedulerStats stats = scheduler_->stats();
  std::ostringstream out;
  out << stats.num_running << " running, " << stats.num_waiting << " waiting, "
      << stats.num_free_blocks << " of " << stats.num_blocks << " blocks free"
      << Some(stats.num_cached_blocks, "cached");
  if (stats.num_host_blocks > 0) {
    out << ", " << stats.num_free_host_blocks << " of " << stats.num_host_blocks << " on the host";
  }
  out << ", " << stats.num_preemptions << " preemptions" << Some(stats.num_swaps, "swaps")
      << Some(stats.num_wasted_rows, "wasted rows")
      << Some(stats.prefix_device_hit_tokens, "tokens hit on the device")
      << Some(stats.prefix_host_hit_tokens, "tokens hit on the host");
  if (options_.prefix_cache) out << ", " << stats.prefix_query_tokens << " tokens looked up";
  out << "\n";
  return out.str();
}

}  // namespace fastgen::testing
