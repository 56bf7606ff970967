#include "tests/testing/fake_engine.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace fastgen::testing {
namespace {

constexpr int32_t kDefaultTokens = 4;
constexpr int32_t kMaxScoresInDelta = 256;
constexpr std::chrono::seconds kPatience(10);

TokenDelta MakeDelta(const GenerateRequest& request, int32_t index, int32_t token,
                     const std::string& text) {
  TokenDelta delta;
  delta.index = index;
  delta.text = text;
  delta.token_ids = {token};
  if (request.output.logprobs.has_value()) {
    TokenLogprob logprob;
    logprob.token = token;
    logprob.logprob = -0.5f;
    logprob.rank = 1;
    logprob.bytes = text;
    for (int32_t i = 0; i < *request.output.logprobs; ++i) {
      logprob.top.push_back({token + i, -0.5f - static_cast<float>(i), text});
    }
    delta.logprobs.push_back(logprob);
  }
  return delta;
}

}  // namespace

FakeEngine::FakeEngine() {
  info_.name = "fake-model";
  info_.architecture = "FakeForCausalLM";
  info_.context_length = 4096;
  info_.vocab_size = 256;
  info_.dtype = "f32";
  info_.backend = "fake";
  info_.weights_hash = "feed";
  info_.bos_id = 1;
  info_.eos_ids = {2};
  info_.has_chat_template = true;
  memory_.weights_bytes = 1000;
  memory_.kv_bytes = 2000;
  memory_.workspace_bytes = 300;
  memory_.num_blocks = 40;
  memory_.block_size = 64;
  memory_.host_kv_bytes = 4000;
  memory_.num_host_blocks = 80;
  thread_ = std::thread([this] { Run(); });
}

FakeEngine::~FakeEngine() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
  // What was asked is answered exactly once, and every sink gets its last call.
  std::vector<std::function<void()>> answers;
  std::vector<std::shared_ptr<Live>> rest;
  std::string failure;
  {
    MutexLock lock(&mutex_);
    answers.swap(answers_);
    for (auto& [id, live] : live_) rest.push_back(live);
    live_.clear();
    failure = failure_at_end_;
  }
  for (const auto& answer : answers) answer();
  for (const auto& live : rest) {
    if (!live->accepted) live->sink->OnAccepted({live->request.request_id, 0, 0, {}});
    if (!failure.empty()) {
      live->sink->OnEngineError(failure);
      continue;
    }
    for (size_t i = 0; i < live->choices.size(); ++i) {
      if (live->choices[i].ended) continue;
      FinishInfo info;
      info.index = static_cast<int32_t>(i);
      info.reason = FinishReason::kCancelled;
      live->sink->OnFinished(info);
    }
  }
}

void FakeEngine::HoldRounds() {
  MutexLock lock(&mutex_);
  num_rounds_left_ = 0;
}

void FakeEngine::LetRounds(int num_rounds) {
  MutexLock lock(&mutex_);
  num_rounds_left_ += num_rounds;
  changed_.SignalAll();
}

void FakeEngine::ReleaseRounds() {
  MutexLock lock(&mutex_);
  num_rounds_left_ = INT64_MAX;
  changed_.SignalAll();
}

void FakeEngine::HoldAnswers() {
  MutexLock lock(&mutex_);
  hold_answers_ = true;
}

void FakeEngine::ReleaseAnswers() {
  MutexLock lock(&mutex_);
  hold_answers_ = false;
  changed_.SignalAll();
}

void FakeEngine::set_plan(absl::StatusOr<PlanInfo> plan) {
  MutexLock lock(&mutex_);
  plan_ = std::move(plan);
}

void FakeEngine::set_retry_after(absl::Duration retry_after) {
  MutexLock lock(&mutex_);
  retry_after_ = retry_after;
}

void FakeEngine::set_num_prompt_tokens(int32_t num_prompt_tokens) {
  MutexLock lock(&mutex_);
  num_prompt_tokens_ = num_prompt_tokens;
}

void FakeEngine::set_token_text(const std::string& text) {
  MutexLock lock(&mutex_);
  token_text_ = text;
}

void FakeEngine::RefuseNext(absl::Status status) {
  MutexLock lock(&mutex_);
  refuse_next_ = std::move(status);
}

void FakeEngine::FinishWith(const std::string& request_id, FinishInfo info) {
  MutexLock lock(&mutex_);
  const auto found = live_.find(request_id);
  if (found == live_.end()) return;
  for (Choice& choice : found->second->choices) choice.finish_with = info;
  changed_.SignalAll();
}

void FakeEngine::FinishChoice(const std::string& request_id, int32_t index, FinishInfo info) {
  MutexLock lock(&mutex_);
  const auto found = live_.find(request_id);
  if (found == live_.end()) return;
  found->second->choices.at(static_cast<size_t>(index)).finish_with = std::move(info);
  changed_.SignalAll();
}

void FakeEngine::Fail(const std::string& message) {
  MutexLock lock(&mutex_);
  failure_ = message;
  changed_.SignalAll();
}

void FakeEngine::FailAtEnd(const std::string& message) {
  MutexLock lock(&mutex_);
  failure_at_end_ = message;
}

void FakeEngine::set_tokenizer(std::unique_ptr<Tokenizer> tokenizer) {
  tokenizer_ = std::move(tokenizer);
}

std::vector<GenerateRequest> FakeEngine::submitted() const {
  MutexLock lock(&mutex_);
  return submitted_;
}

template <typename Condition>
bool FakeEngine::WaitUntil(const Condition& condition) const {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  MutexLock lock(&mutex_);
  while (!condition()) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    changed_.WaitFor(&mutex_, left);
  }
  return true;
}

bool FakeEngine::WaitSubmitted(size_t count) const {
  return WaitUntil([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return submitted_.size() >= count; });
}

bool FakeEngine::WaitCancelCalled(const std::string& request_id) const {
  return WaitUntil([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return std::count(cancel_calls_.begin(), cancel_calls_.end(), request_id) > 0;
  });
}

bool FakeEngine::WaitProduced(int64_t num_tokens) const {
  return WaitUntil([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return num_produced_ >= num_tokens; });
}

bool FakeEngine::WaitAsked(size_t count) const {
  return WaitUntil([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return num_asked_ >= count; });
}

int FakeEngine::num_live() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(live_.size());
}

absl::Status FakeEngine::Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) {
  MutexLock lock(&mutex_);
  submitted_.push_back(request);
  changed_.SignalAll();
  if (refuse_next_.has_value()) return *std::exchange(refuse_next_, std::nullopt);
  if (!failure_.empty()) return absl::UnavailableError(failure_);
  if (draining_) return absl::UnavailableError("draining");
  const auto* text = std::get_if<TextPrompt>(&request.prompt);
  if (text != nullptr && text->text.empty()) {
    return absl::InvalidArgumentError("prompt: is empty");
  }
  if (live_.count(request.request_id) > 0) {
    return absl::AlreadyExistsError(absl::StrCat("request_id: ", request.request_id, " is live"));
  }
  auto live = std::make_shared<Live>();
  live->sink = std::move(sink);
  live->request = std::move(request);
  live->choices.resize(static_cast<size_t>(live->request.n));
  live->num_open = live->request.n;
  const std::string id = live->request.request_id;
  live_[id] = std::move(live);
  return absl::OkStatus();
}

bool FakeEngine::Cancel(std::string_view request_id, const TokenSink* only) {
  MutexLock lock(&mutex_);
  cancel_calls_.emplace_back(request_id);
  changed_.SignalAll();
  const auto found = live_.find(std::string(request_id));
  if (found == live_.end()) return false;
  if (only != nullptr && found->second->sink.get() != only) return false;
  found->second->cancelled = true;
  return true;
}

void FakeEngine::CancelAll() {
  MutexLock lock(&mutex_);
  for (auto& [id, live] : live_) live->cancelled = true;
  changed_.SignalAll();
}

void FakeEngine::Ask(std::function<void()> answer) {
  MutexLock lock(&mutex_);
  answers_.push_back(std::move(answer));
  ++num_asked_;
  changed_.SignalAll();
}

void FakeEngine::Plan(GenerateRequest request,
                      std::function<void(absl::StatusOr<PlanInfo>)> done) {
  absl::StatusOr<PlanInfo> plan;
  {
    MutexLock lock(&mutex_);
    submitted_.push_back(std::move(request));
    plan = plan_;
  }
  Ask([done = std::move(done), plan = std::move(plan)] { done(plan); });
}

void FakeEngine::ListRequests(std::function<void(std::vector<RequestInfo>)> done) {
  Ask([this, done = std::move(done)] {
    std::vector<RequestInfo> requests;
    {
      MutexLock lock(&mutex_);
      for (const auto& [id, live] : live_) {
        RequestInfo info;
        info.request_id = id;
        info.phase = RequestInfo::Phase::kDecode;
        info.prompt_tokens = num_prompt_tokens_;
        for (const Choice& choice : live->choices) info.output_tokens += choice.num_produced;
        info.priority = live->request.priority;
        info.age = absl::Seconds(2);
        requests.push_back(std::move(info));
      }
    }
    done(std::move(requests));
  });
}

void FakeEngine::Pause(std::function<void()> done) {
  {
    MutexLock lock(&mutex_);
    paused_ = true;
  }
  Ask(std::move(done));
}

void FakeEngine::Resume() {
  MutexLock lock(&mutex_);
  paused_ = false;
  changed_.SignalAll();
}

void FakeEngine::FlushPrefixCache(std::function<void(int32_t)> done) {
  Ask([done = std::move(done)] { done(7); });
}

absl::Duration FakeEngine::RetryAfter() const {
  MutexLock lock(&mutex_);
  return retry_after_;
}

bool FakeEngine::HasWork() const {
  if (!failure_at_end_.empty()) return false;
  if (!answers_.empty() && !hold_answers_) return true;
  if (live_.empty()) return false;
  if ((num_rounds_left_ > 0 && !paused_) || !failure_.empty()) return true;
  return std::any_of(live_.begin(), live_.end(), [](const auto& entry) {
    const Live& live = *entry.second;
    return live.cancelled || !live.accepted ||
           std::any_of(live.choices.begin(), live.choices.end(), [](const Choice& choice) {
             return !choice.ended && choice.finish_with.has_value();
           });
  });
}

void FakeEngine::Run() {
  while (true) {
    std::vector<std::string> ids;
    std::vector<std::function<void()>> answers;
    bool may_produce = false;
    {
      MutexLock lock(&mutex_);
      while (!stopping_ && !HasWork()) changed_.Wait(&mutex_);
      if (stopping_) return;
      if (!hold_answers_) answers.swap(answers_);
      may_produce = num_rounds_left_ > 0 && !paused_ && !live_.empty();
      if (may_produce && num_rounds_left_ != INT64_MAX) --num_rounds_left_;
      for (const auto& entry : live_) ids.push_back(entry.first);
    }
    for (const auto& answer : answers) answer();
    for (const std::string& id : ids) Advance(id, may_produce);
  }
}

std::vector<FakeEngine::Turn> FakeEngine::PlanTurns(Live* live, bool may_produce) {
  std::vector<Turn> turns;
  const int32_t max_tokens = live->request.stopping.max_tokens.value_or(kDefaultTokens);
  for (size_t i = 0; i < live->choices.size(); ++i) {
    Choice& choice = live->choices[i];
    if (choice.ended) continue;
    const int32_t index = static_cast<int32_t>(i);
    Turn turn;
    if (live->cancelled) {
      turn.finish.emplace().reason = FinishReason::kCancelled;
    } else if (choice.finish_with.has_value()) {
      turn.finish = choice.finish_with;
    } else if (may_produce) {
      if (choice.num_produced < max_tokens) {
        ++choice.num_produced;
        turn.delta = MakeDelta(live->request, index, choice.num_produced, token_text_);
      }
      if (choice.num_produced >= max_tokens) turn.finish.emplace().reason = FinishReason::kLength;
    }
    if (turn.finish.has_value()) {
      turn.finish->index = index;
      turn.finish->usage = {num_prompt_tokens_, 0, choice.num_produced};
      choice.ended = true;
      --live->num_open;
    }
    turns.push_back(std::move(turn));
  }
  return turns;
}

void FakeEngine::Accept(const Live& live, int32_t num_prompt_tokens) {
  AcceptedInfo accepted;
  accepted.request_id = live.request.request_id;
  accepted.prompt_tokens = num_prompt_tokens;
  for (int32_t i = 0; i < num_prompt_tokens; ++i) accepted.prompt_token_ids.push_back(7 + i % 100);
  live.sink->OnAccepted(accepted);
  if (live.request.output.progress) {
    live.sink->OnProgress(1, num_prompt_tokens);
    live.sink->OnProgress(num_prompt_tokens, num_prompt_tokens);
  }
  if (!live.request.output.prompt_logprobs.has_value()) return;
  for (int32_t done = 0; done < num_prompt_tokens; done += kMaxScoresInDelta) {
    TokenDelta delta;
    for (int32_t i = done; i < std::min(num_prompt_tokens, done + kMaxScoresInDelta); ++i) {
      TokenLogprob& score = delta.prompt_logprobs.emplace_back();
      score.token = accepted.prompt_token_ids[static_cast<size_t>(i)];
      score.logprob = i == 0 ? 0 : -1.0f;
      score.rank = i == 0 ? 0 : 1;
    }
    live.sink->OnDelta(std::move(delta));
  }
}

void FakeEngine::Advance(const std::string& id, bool may_produce) {
  std::shared_ptr<Live> live;
  std::string failure;
  std::vector<Turn> turns;
  int32_t num_prompt_tokens = 0;
  bool accept = false;
  {
    MutexLock lock(&mutex_);
    live = live_.at(id);
    failure = failure_;
    num_prompt_tokens = num_prompt_tokens_;
    accept = !std::exchange(live->accepted, true);
    if (failure.empty()) turns = PlanTurns(live.get(), may_produce);
  }
  if (accept) Accept(*live, num_prompt_tokens);
  int64_t num_produced = 0;
  for (Turn& turn : turns) {
    if (turn.delta.has_value()) {
      ++num_produced;
      live->sink->OnDelta(*std::move(turn.delta));
    }
    if (turn.finish.has_value()) live->sink->OnFinished(*std::move(turn.finish));
  }
  if (!failure.empty()) live->sink->OnEngineError(failure);
  MutexLock lock(&mutex_);
  num_produced_ += num_produced;
  if (live->num_open == 0 || !failure.empty()) live_.erase(id);
  changed_.SignalAll();
}

absl::StatusOr<std::vector<int32_t>> FakeEngine::Tokenize(std::string_view text,
                                                          const EncodeOptions& options) const {
  if (tokenizer_ != nullptr) return tokenizer_->Encode(text, options);
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids.push_back(1);
  for (const unsigned char c : text) ids.push_back(c);
  return ids;
}

absl::StatusOr<std::string> FakeEngine::Detokenize(absl::Span<const int32_t> ids,
                                                   bool skip_special_tokens) const {
  if (tokenizer_ != nullptr) return DecodeAll(*tokenizer_, ids, skip_special_tokens);
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= info_.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("ids: ", id, " is outside the vocabulary"));
    }
    if (id > 2 || !skip_special_tokens) text.push_back(static_cast<char>(id));
  }
  return text;
}

absl::StatusOr<std::vector<std::string>> FakeEngine::TokenBytes(
    absl::Span<const int32_t> ids) const {
  std::vector<std::string> bytes;
  for (const int32_t id : ids) {
    if (id < 0 || id >= info_.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("ids: ", id, " is outside the vocabulary"));
    }
    bytes.push_back(std::string(1, static_cast<char>(id)));
  }
  return bytes;
}

absl::StatusOr<Engine::Rendered> FakeEngine::RenderChat(const ChatPrompt& chat) const {
  Rendered rendered;
  for (const ChatMessage& message : chat.messages) {
    absl::StrAppend(&rendered.text, "[", message.role, "]", message.content.value_or("-"));
  }
  for (const unsigned char c : rendered.text) rendered.ids.push_back(c);
  return rendered;
}

EngineStats FakeEngine::stats() const {
  MutexLock lock(&mutex_);
  EngineStats stats;
  stats.num_running = static_cast<int32_t>(live_.size());
  stats.num_blocks = memory_.num_blocks;
  stats.num_free_blocks = memory_.num_blocks - stats.num_running;
  stats.output_tokens = num_produced_;
  stats.prefix_query_tokens = 100;
  stats.prefix_device_hit_tokens = 60;
  stats.prefix_host_hit_tokens = 10;
  stats.num_cached_blocks = 5;
  stats.num_host_blocks = memory_.num_host_blocks;
  stats.num_free_host_blocks = 79;
  stats.num_swaps = 3;
  stats.num_wasted_rows = 11;
  stats.num_queued_tokens = 17;
  stats.paused = paused_;
  return stats;
}

absl::Status FakeEngine::health() const {
  MutexLock lock(&mutex_);
  return failure_.empty() ? absl::OkStatus() : absl::UnavailableError(failure_);
}

void FakeEngine::StartDrain() {
  MutexLock lock(&mutex_);
  draining_ = true;
}

bool FakeEngine::WaitIdle(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(&mutex_);
  while (!live_.empty()) {
    const absl::Duration left = std::min(deadline - absl::Now(), absl::Seconds(1));
    if (left <= absl::ZeroDuration()) return false;
    changed_.WaitFor(&mutex_, absl::ToChronoNanoseconds(left));
  }
  return true;
}

}  // namespace fastgen::testing
