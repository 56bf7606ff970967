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
constexpr int32_t kPromptTokens = 3;
constexpr std::chrono::seconds kPatience(10);

TokenDelta MakeDelta(const GenerateRequest& request, int32_t token, const std::string& text) {
  TokenDelta delta;
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
  memory_ = {.weights_bytes = 1000, .kv_bytes = 2000, .workspace_bytes = 300, .num_blocks = 40,
             .block_size = 64};
  thread_ = std::thread([this] { Run(); });
}

FakeEngine::~FakeEngine() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void FakeEngine::Pause() {
  MutexLock lock(&mutex_);
  num_rounds_left_ = 0;
}

void FakeEngine::Step(int num_rounds) {
  MutexLock lock(&mutex_);
  num_rounds_left_ += num_rounds;
  changed_.SignalAll();
}

void FakeEngine::Resume() {
  MutexLock lock(&mutex_);
  num_rounds_left_ = INT64_MAX;
  changed_.SignalAll();
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
  found->second->finish_with = std::move(info);
  changed_.SignalAll();
}

void FakeEngine::Fail(const std::string& message) {
  MutexLock lock(&mutex_);
  failure_ = message;
  changed_.SignalAll();
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
  const std::string id = live->request.request_id;
  live_[id] = std::move(live);
  return absl::OkStatus();
}

bool FakeEngine::Cancel(std::string_view request_id) {
  MutexLock lock(&mutex_);
  cancel_calls_.emplace_back(request_id);
  changed_.SignalAll();
  const auto found = live_.find(std::string(request_id));
  if (found == live_.end()) return false;
  found->second->cancelled = true;
  return true;
}

void FakeEngine::CancelAll() {
  MutexLock lock(&mutex_);
  for (auto& [id, live] : live_) live->cancelled = true;
  changed_.SignalAll();
}

bool FakeEngine::HasWork() const {
  if (live_.empty()) return false;
  if (num_rounds_left_ > 0 || !failure_.empty()) return true;
  return std::any_of(live_.begin(), live_.end(), [](const auto& entry) {
    return entry.second->cancelled || entry.second->finish_with.has_value() ||
           !entry.second->accepted;
  });
}

void FakeEngine::Run() {
  while (true) {
    std::vector<std::string> ids;
    bool may_produce = false;
    {
      MutexLock lock(&mutex_);
      while (!stopping_ && !HasWork()) changed_.Wait(&mutex_);
      if (stopping_) return;
      may_produce = num_rounds_left_ > 0;
      if (may_produce && num_rounds_left_ != INT64_MAX) --num_rounds_left_;
      for (const auto& entry : live_) ids.push_back(entry.first);
    }
    for (const std::string& id : ids) Advance(id, may_produce);
  }
}

bool FakeEngine::Advance(const std::string& id, bool may_produce) {
  std::shared_ptr<Live> live;
  std::string failure;
  std::string text;
  std::optional<FinishInfo> finish;
  bool accept = false;
  bool produce = false;
  {
    MutexLock lock(&mutex_);
    live = live_.at(id);
    failure = failure_;
    text = token_text_;
    accept = !std::exchange(live->accepted, true);
    const int32_t max_tokens = live->request.stopping.max_tokens.value_or(kDefaultTokens);
    if (live->cancelled) {
      finish.emplace().reason = FinishReason::kCancelled;
    } else if (live->finish_with.has_value()) {
      finish = live->finish_with;
    } else if (may_produce) {
      produce = live->num_produced < max_tokens;
      if (produce) ++live->num_produced;
      if (live->num_produced >= max_tokens) finish.emplace().reason = FinishReason::kLength;
    }
    if (finish.has_value()) finish->usage = {kPromptTokens, 0, live->num_produced};
  }
  TokenSink& sink = *live->sink;
  if (accept) sink.OnAccepted({live->request.request_id, kPromptTokens, 0, {7, 8, 9}});
  if (failure.empty() && produce) {
    sink.OnDelta(MakeDelta(live->request, live->num_produced, text));
  }
  if (!failure.empty()) {
    sink.OnEngineError(failure);
  } else if (finish.has_value()) {
    sink.OnFinished(*finish);
  }
  MutexLock lock(&mutex_);
  if (produce) ++num_produced_;
  const bool ended = finish.has_value() || !failure.empty();
  if (ended) live_.erase(id);
  changed_.SignalAll();
  return ended;
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
  for (const int32_t id : ids) bytes.push_back(std::string(1, static_cast<char>(id)));
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
