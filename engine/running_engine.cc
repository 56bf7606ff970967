#include "engine/running_engine.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/check_request.h"
#include "engine/choice_id.h"
#include "engine/completion.h"
#include "engine/grammar_cache.h"
#include "engine/request_queue.h"
#include "engine/request_stream.h"
#include "engine/step_loop.h"
#include "engine/text/answer_constraint.h"
#include "engine/text/structural_tag.h"

namespace fastgen {
namespace {

uint64_t DrawSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

absl::Status TooManyQueries() {
  return absl::ResourceExhaustedError(
      absl::StrCat(RequestQueue::kMaxQueries, " questions wait for an answer; that is the limit"));
}

// The same error, with the field that it concerns in front.
absl::Status About(std::string_view field, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(ToAbsl(field), ": ", status.message()));
}

EngineParts WithParserNames(EngineParts parts) {
  parts.info.tool_call_parser = std::string(NameOf(parts.parsers.tool_calls));
  parts.info.reasoning_parser = std::string(NameOf(parts.parsers.reasoning));
  return parts;
}

// A final message that is to be continued may stand within its reasoning.
bool ContinuesReasoning(const GenerateRequest& request) {
  const auto* chat = std::get_if<ChatPrompt>(&request.prompt);
  if (chat == nullptr || !chat->continue_final_message || chat->messages.empty()) return false;
  const std::string content = chat->messages.back().content.value_or("");
  const size_t opened = content.rfind("<think>");
  const size_t closed = content.rfind("</think>");
  return opened != std::string::npos && (closed == std::string::npos || closed < opened);
}

bool HasToolCalls(const Constraint& constraint) {
  return constraint.kind == Constraint::Kind::kToolCalls || constraint.or_tool_calls;
}

class RunningEngine final : public Engine {
 public:
  explicit RunningEngine(EngineParts parts);
  ~RunningEngine() override;

  absl::Status Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) override;
  void CompileConstraint(
      const GenerateRequest& request,
      std::function<void(absl::StatusOr<std::shared_ptr<const Grammar>>)> done) override;
  bool Cancel(std::string_view request_id, const TokenSink* only) override {
    return queue_.Cancel(request_id, only);
  }
  void Plan(GenerateRequest request, std::function<void(absl::StatusOr<PlanInfo>)> done) override;
  void ListRequests(std::function<void(std::vector<RequestInfo>)> done) override;
  void Pause(std::function<void()> done) override;
  void Resume() override { queue_.Resume(); }
  void FlushPrefixCache(std::function<void(int32_t)> done) override;
  absl::Duration RetryAfter() const override;
  absl::StatusOr<std::vector<int32_t>> Tokenize(std::string_view text,
                                                const EncodeOptions& options) const override;
  absl::StatusOr<std::string> Detokenize(absl::Span<const int32_t> ids,
                                         bool skip_special_tokens) const override;
  absl::StatusOr<std::vector<std::string>> TokenBytes(absl::Span<const int32_t> ids) const override;
  absl::StatusOr<Rendered> RenderChat(const ChatPrompt& chat) const override;
  const ModelInfo& model_info() const override { return parts_.info; }
  const MemoryReport& memory_report() const override { return parts_.memory; }
  EngineStats stats() const override;
  absl::Status health() const override { return queue_.health(); }
  void StartDrain() override { queue_.StartDrain(); }
  bool WaitIdle(absl::Duration timeout) override { return queue_.WaitIdle(timeout); }
  void CancelAll() override { queue_.CancelAll(); }

 private:
  RequestLimits limits() const { return {parts_.scheduler, parts_.info.vocab_size}; }
  // A request that passed every check that needs no engine thread; its prompt, stopping and output
  // are moved here.
  struct Prepared {
    std::vector<int32_t> prompt;
    std::optional<AnswerParserOptions> parser;
    StopCondition stop;
    std::shared_ptr<const TokenRules> rules;
    std::shared_ptr<const TokenConstraint> constraint;
    int64_t deadline_us = kNoDeadline;
  };
  absl::StatusOr<Prepared> Prepare(GenerateRequest* request) const;
  absl::StatusOr<std::vector<int32_t>> PromptIds(GenerateRequest* request) const;
  // How the request's output is to be parsed; nullopt for text as it is.
  absl::StatusOr<std::optional<AnswerParserOptions>> ParserFor(
      const GenerateRequest& request, absl::Span<const int32_t> prompt) const;
  // The constraint of a request as the grammar library takes it; "" for none.
  absl::StatusOr<std::string> TagOf(const GenerateRequest& request) const;
  std::shared_ptr<const TokenConstraint> ConstraintFor(const GenerateRequest& request,
                                                       const Prepared& prepared) const;
  std::vector<int32_t> MarkersOf(const AnswerParserOptions& parser) const;
  int64_t NowUs() const { return absl::ToUnixMicros(clock_->Now()); }
  int64_t DeadlineUs(absl::Time deadline) const;
  absl::Status CheckInTime(const GenerateRequest& request, const Prepared& prepared) const;
  AddCommand MakeAddCommand(GenerateRequest request, Prepared prepared, uint64_t seed,
                            std::shared_ptr<TokenSink> sink);
  absl::Status CheckIds(absl::Span<const int32_t> ids) const;

  const EngineParts parts_;
  const RealClock real_clock_;
  const Clock* const clock_;
  const std::shared_ptr<const AnswerVocabulary> vocabulary_;
  std::atomic<uint64_t> next_request_ = 1;
  GrammarCache grammars_;
  RequestQueue queue_;
  Completion completion_;
  StepLoop step_loop_;
  std::thread engine_thread_;  // last: it uses everything above
};

RunningEngine::RunningEngine(EngineParts parts)
    : parts_(WithParserNames(std::move(parts))),
      clock_(parts_.clock != nullptr ? parts_.clock.get() : &real_clock_),
      vocabulary_(std::make_shared<const AnswerVocabulary>(*parts_.tokenizer, parts_.info.vocab_size,
                                                           parts_.info.eos_ids,
                                                           parts_.parsers.reasoning_markers)),
      grammars_(parts_.tokenizer.get(), parts_.info.vocab_size, parts_.info.eos_ids,
                parts_.parsers.tool_call_markers),
      queue_(parts_.queue),
      completion_(&queue_, parts_.scheduler.max_num_seqs),
      step_loop_(parts_.scheduler, parts_.executor.get(), clock_, &queue_, &completion_),
      engine_thread_([this] { step_loop_.Run(); }) {}

RunningEngine::~RunningEngine() {
  grammars_.Stop();
  queue_.StartDrain();
  queue_.CancelAll();
  queue_.Close();
  // It ends once all sequences have. Sinks may still call the engine: it stays whole until the last
  // one has been told.
  engine_thread_.join();
  queue_.WaitIdle(absl::InfiniteDuration());
}

absl::StatusOr<std::vector<int32_t>> RunningEngine::PromptIds(GenerateRequest* request) const {
  if (auto* tokens = std::get_if<TokenPrompt>(&request->prompt)) return std::move(tokens->ids);
  if (const auto* chat = std::get_if<ChatPrompt>(&request->prompt)) {
    ASSIGN_OR_RETURN(Rendered rendered, RenderChat(*chat));
    return std::move(rendered.ids);
  }
  EncodeOptions options;
  options.add_special_tokens = request->add_special_tokens;
  options.parse_special = request->parse_special;
  auto ids = parts_.tokenizer->Encode(std::get<TextPrompt>(request->prompt).text, options);
  if (!ids.ok()) return About("prompt", ids.status());
  return ids;
}

absl::StatusOr<std::string> RunningEngine::TagOf(const GenerateRequest& request) const {
  if (request.constraint.kind == Constraint::Kind::kNone) return std::string();
  if (parts_.info.eos_ids.empty()) {
    return absl::FailedPreconditionError(
        "constraint: this model has no end token, with which a whole answer could end");
  }
  ToolCallStyle style;
  style.format = parts_.parsers.tool_calls;
  for (int32_t id : parts_.parsers.tool_call_markers) {
    style.has_args_token = style.has_args_token || parts_.tokenizer->TokenBytes(id) == "[ARGS]";
  }
  const auto* chat = std::get_if<ChatPrompt>(&request.prompt);
  return MakeStructuralTag(request.constraint,
                           chat == nullptr ? std::vector<std::string>() : chat->tools_json, style);
}

void RunningEngine::CompileConstraint(
    const GenerateRequest& request,
    std::function<void(absl::StatusOr<std::shared_ptr<const Grammar>>)> done) {
  const absl::StatusOr<std::string> tag = TagOf(request);
  if (!tag.ok()) return done(tag.status());
  if (tag->empty()) return done(std::shared_ptr<const Grammar>());
  grammars_.Compile(*tag,
                    HasToolCalls(request.constraint) ? GrammarCache::Markers::kShown
                                                     : GrammarCache::Markers::kHidden,
                    std::move(done));
}

std::shared_ptr<const TokenConstraint> RunningEngine::ConstraintFor(
    const GenerateRequest& request, const Prepared& prepared) const {
  if (request.grammar == nullptr) return nullptr;
  AnswerConstraintOptions options;
  options.avoids_end = request.stopping.ignore_eos;
  if (prepared.parser.has_value() && prepared.parser->reasoning != ReasoningFormat::kNone) {
    options.reasoning = prepared.parser->reasoning_open
                            ? AnswerConstraintOptions::Reasoning::kOpen
                            : AnswerConstraintOptions::Reasoning::kMayOpen;
  }
  return std::make_shared<const AnswerConstraint>(vocabulary_, request.grammar, options);
}

absl::StatusOr<RunningEngine::Prepared> RunningEngine::Prepare(GenerateRequest* request) const {
  RETURN_IF_ERROR(CheckRequest(*request, limits()));
  if (request->grammar == nullptr) RETURN_IF_ERROR(TagOf(*request).status());
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.prompt, PromptIds(request));
  ASSIGN_OR_RETURN(const int32_t max_output_tokens,
                   CheckPrompt(*request, prepared.prompt, limits()));
  ASSIGN_OR_RETURN(prepared.parser, ParserFor(*request, prepared.prompt));
  StoppingParams stopping = request->stopping;
  // The end of what a grammar describes is the end of the answer in any case.
  if (request->constraint.kind != Constraint::Kind::kNone) stopping.ignore_eos = false;
  prepared.stop = MakeStopCondition(stopping, max_output_tokens, parts_.info.eos_ids);
  prepared.constraint = ConstraintFor(*request, prepared);
  ASSIGN_OR_RETURN(prepared.rules,
                   MakeTokenRules(request->sampling, prepared.stop, *parts_.tokenizer));
  prepared.deadline_us = DeadlineUs(request->deadline);
  return prepared;
}

absl::StatusOr<std::optional<AnswerParserOptions>> RunningEngine::ParserFor(
    const GenerateRequest& request, absl::Span<const int32_t> prompt) const {
  AnswerParserOptions options;
  if (request.output.tool_calls) {
    options.tool_calls = parts_.parsers.tool_calls;
    if (options.tool_calls == ToolCallFormat::kNone) {
      return absl::InvalidArgumentError(
          "output.tool_calls: no parser is known for this model's tool calls; --tool-call-parser "
          "names one");
    }
    options.calls_only = request.constraint.kind == Constraint::Kind::kToolCalls;
    options.id_seed = DrawSeed();
  }
  if (request.output.reasoning) options.reasoning = parts_.parsers.reasoning;
  if (options.reasoning == ReasoningFormat::kThink) {
    // The tag and the blanks after it are a few tokens however they were cut.
    const auto end = prompt.subspan(prompt.size() - std::min<size_t>(prompt.size(), 32));
    options.reasoning_open =
        OpensReasoning(DecodeAll(*parts_.tokenizer, end, /*skip_special_tokens=*/false)) ||
        ContinuesReasoning(request);
  }
  const bool parses = options.tool_calls != ToolCallFormat::kNone ||
                      options.reasoning != ReasoningFormat::kNone;
  return parses ? std::optional<AnswerParserOptions>(options) : std::nullopt;
}

std::vector<int32_t> RunningEngine::MarkersOf(const AnswerParserOptions& parser) const {
  std::vector<int32_t> markers;
  const auto add = [&markers](const std::vector<int32_t>& ids) {
    markers.insert(markers.end(), ids.begin(), ids.end());
  };
  if (parser.tool_calls != ToolCallFormat::kNone) add(parts_.parsers.tool_call_markers);
  if (parser.reasoning != ReasoningFormat::kNone) add(parts_.parsers.reasoning_markers);
  std::sort(markers.begin(), markers.end());
  return markers;
}

int64_t RunningEngine::DeadlineUs(absl::Time deadline) const {
  // Beyond this a deadline is as good as none, and sums with it cannot overflow.
  constexpr absl::Duration kNever = absl::Hours(24 * 365);
  // The client's deadline is on the machine's clock, the engine has its own.
  const absl::Duration left = std::max(deadline - absl::Now(), -kNever);
  return left > kNever ? kNoDeadline : NowUs() + absl::ToInt64Microseconds(left);
}

absl::Status RunningEngine::CheckInTime(const GenerateRequest& request,
                                        const Prepared& prepared) const {
  if (prepared.deadline_us == kNoDeadline) return absl::OkStatus();
  const EngineSnapshot snapshot = queue_.snapshot();
  // What is cached is for the engine thread to find out; at most all that the caches hold.
  const bool may_be_cached = parts_.scheduler.prefix_cache && !ScoresPrompt(request);
  const int64_t num_cached = may_be_cached ? snapshot.num_kv_tokens : 0;
  const int64_t num_own =
      std::max<int64_t>(static_cast<int64_t>(prepared.prompt.size()) - num_cached, 1);
  // So of those ahead: each has a token left to compute at least.
  const SchedulerStats& stats = snapshot.scheduler;
  int64_t num_ahead = queue_.NumTokensAhead(request.priority);
  if (parts_.scheduler.prefix_cache) num_ahead = std::min<int64_t>(num_ahead, stats.num_waiting);
  double first_token_us =
      snapshot.step_cost.PrefillUs(num_ahead + num_own, parts_.scheduler.max_num_batched_tokens);
  const int64_t now_us = NowUs();
  const bool is_idle = stats.num_running + stats.num_waiting == 0;
  if (is_idle && now_us - snapshot.last_step_us > kStaleAfterUs) first_token_us = 0;
  return CheckDeadline(prepared.deadline_us, now_us, static_cast<int64_t>(first_token_us),
                       parts_.scheduler, snapshot.step_cost);
}

AddCommand RunningEngine::MakeAddCommand(GenerateRequest request, Prepared prepared, uint64_t seed,
                                         std::shared_ptr<TokenSink> sink) {
  const absl::Time now = clock_->Now();
  NewSequence sequence;
  sequence.id = LeaderId(next_request_.fetch_add(1));
  sequence.prompt = prepared.prompt;
  sequence.stop = std::move(prepared.stop);
  sequence.sampling = MakeSampling(request, seed);
  sequence.sampling.rules = std::move(prepared.rules);
  sequence.sampling.constraint = std::move(prepared.constraint);
  sequence.priority = request.priority;
  sequence.arrival_us = absl::ToUnixMicros(now);
  sequence.deadline_us = prepared.deadline_us;
  sequence.cache_salt = std::move(request.cache_salt);
  sequence.may_be_cut = !request.stopping.stop.empty();

  StreamRequest stream;
  stream.request_id = std::move(request.request_id);
  stream.leader = sequence.id;
  stream.n = request.n;
  stream.best_of = request.best_of;
  stream.prompt = std::move(prepared.prompt);
  stream.stopping = std::move(request.stopping);
  stream.output = request.output;
  stream.seed = seed;
  stream.scores_prompt = ScoresPrompt(request);
  stream.submitted = now;
  stream.parser = prepared.parser;
  if (stream.parser.has_value()) stream.markers = MarkersOf(*stream.parser);

  AddCommand command;
  command.sequences.reserve(request.best_of);
  for (int32_t i = 1; i < request.best_of; ++i) {
    NewSequence follower = sequence;
    follower.id = sequence.id + i;
    follower.leader = sequence.id;
    follower.sampling.choice_index = i;
    follower.sampling.num_prompt_top_logprobs = -1;
    command.sequences.push_back(std::move(follower));
  }
  command.sequences.insert(command.sequences.begin(), std::move(sequence));
  command.stream =
      std::make_unique<RequestStream>(parts_.tokenizer.get(), std::move(stream), std::move(sink));
  return command;
}

absl::Status RunningEngine::Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) {
  CHECK(sink != nullptr);
  QueuePlace place;
  place.priority = request.priority;
  place.num_choices = std::clamp(request.best_of, 1, kMaxChoices);
  // Before the prompt is read: a full queue refuses at once.
  RETURN_IF_ERROR(queue_.CheckPush(request.request_id, place));
  if (request.grammar == nullptr) {
    ASSIGN_OR_RETURN(const std::string tag, TagOf(request));
    if (!tag.empty()) {
      ASSIGN_OR_RETURN(request.grammar,
                       grammars_.CompileNow(tag, HasToolCalls(request.constraint)
                                                     ? GrammarCache::Markers::kShown
                                                     : GrammarCache::Markers::kHidden));
    }
  }
  ASSIGN_OR_RETURN(Prepared prepared, Prepare(&request));
  place.num_prompt_tokens = static_cast<int32_t>(prepared.prompt.size());
  // Before its choices are made: a full queue should cost little.
  RETURN_IF_ERROR(queue_.CheckPush(request.request_id, place));
  RETURN_IF_ERROR(CheckInTime(request, prepared));
  const uint64_t seed = request.sampling.seed.has_value() ? *request.sampling.seed : DrawSeed();
  const std::string request_id = request.request_id;
  const TokenSink* const key = sink.get();
  return queue_.Push(
      request_id, key, place,
      MakeAddCommand(std::move(request), std::move(prepared), seed, std::move(sink)));
}

void RunningEngine::Plan(GenerateRequest request,
                         std::function<void(absl::StatusOr<PlanInfo>)> done) {
  PlanQuery query;
  query.request_id = request.request_id;
  // A dry run needs no name.
  if (request.request_id.empty()) request.request_id = "plan";
  absl::StatusOr<Prepared> prepared = Prepare(&request);
  if (!prepared.ok()) {
    done(prepared.status());
    return;
  }
  PlanInfo unasked;
  unasked.prompt_tokens = static_cast<int32_t>(prepared->prompt.size());
  query.prompt = std::move(prepared->prompt);
  query.cache_salt = std::move(request.cache_salt);
  query.priority = request.priority;
  query.deadline_us = prepared->deadline_us;
  query.scores_prompt = ScoresPrompt(request);
  query.done = std::move(done);
  EngineCommand command = std::move(query);
  const RequestQueue::Asked asked = queue_.Ask(std::move(command));
  if (asked == RequestQueue::Asked::kTaken) return;
  done = std::move(std::get<PlanQuery>(command).done);
  if (asked == RequestQueue::Asked::kTooMany) {
    done(TooManyQueries());
    return;
  }
  unasked.reason = std::string(queue_.CheckAccepting().message());
  done(std::move(unasked));
}

void RunningEngine::ListRequests(std::function<void(std::vector<RequestInfo>)> done) {
  EngineCommand command = ListQuery{std::move(done)};
  if (queue_.Ask(std::move(command)) == RequestQueue::Asked::kTaken) return;
  std::get<ListQuery>(command).done({});
}

void RunningEngine::Pause(std::function<void()> done) {
  EngineCommand command = PauseQuery{std::move(done)};
  if (queue_.Ask(std::move(command)) == RequestQueue::Asked::kTaken) return;
  std::get<PauseQuery>(command).done();
}

void RunningEngine::FlushPrefixCache(std::function<void(int32_t)> done) {
  EngineCommand command = FlushQuery{std::move(done)};
  if (queue_.Ask(std::move(command)) == RequestQueue::Asked::kTaken) return;
  std::get<FlushQuery>(command).done(0);
}

absl::Duration RunningEngine::RetryAfter() const {
  const EngineSnapshot snapshot = queue_.snapshot();
  const double waiting_us = snapshot.step_cost.PrefillUs(snapshot.scheduler.num_waiting_tokens,
                                                         parts_.scheduler.max_num_batched_tokens);
  return std::clamp(absl::Microseconds(waiting_us), absl::Seconds(1), absl::Seconds(60));
}

absl::StatusOr<std::vector<int32_t>> RunningEngine::Tokenize(std::string_view text,
                                                             const EncodeOptions& options) const {
  return parts_.tokenizer->Encode(text, options);
}

absl::StatusOr<std::string> RunningEngine::Detokenize(absl::Span<const int32_t> ids,
                                                      bool skip_special_tokens) const {
  RETURN_IF_ERROR(CheckIds(ids));
  return DecodeAll(*parts_.tokenizer, ids, skip_special_tokens);
}

absl::StatusOr<std::vector<std::string>> RunningEngine::TokenBytes(
    absl::Span<const int32_t> ids) const {
  RETURN_IF_ERROR(CheckIds(ids));
  std::vector<std::string> bytes;
  bytes.reserve(ids.size());
  for (int32_t id : ids) bytes.emplace_back(parts_.tokenizer->TokenBytes(id));
  return bytes;
}

absl::Status RunningEngine::CheckIds(absl::Span<const int32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < parts_.info.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat("ids: ", ids[i], " at index ", i,
                                                   " is outside the vocabulary [0, ",
                                                   parts_.info.vocab_size, ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Engine::Rendered> RunningEngine::RenderChat(const ChatPrompt& chat) const {
  if (!parts_.chat_template.ok()) return About("chat", parts_.chat_template.status());
  auto rendered = parts_.chat_template->Render(chat, clock_->Now());
  if (!rendered.ok()) return About("chat", rendered.status());
  EncodeOptions options;
  options.add_special_tokens = false;  // the template writes them
  options.untrusted = rendered->untrusted;
  auto ids = parts_.tokenizer->Encode(rendered->text, options);
  if (!ids.ok()) return About("chat", ids.status());
  return Rendered{std::move(rendered->text), *std::move(ids)};
}

EngineStats RunningEngine::stats() const {
  const EngineSnapshot snapshot = queue_.snapshot();
  const SchedulerStats& scheduler = snapshot.scheduler;
  const Completion::Counters counters = completion_.counters();
  EngineStats stats;
  stats.num_running = scheduler.num_running;
  stats.num_waiting = scheduler.num_waiting;
  stats.num_queued_tokens = scheduler.num_waiting_tokens;
  stats.num_free_blocks = scheduler.num_free_blocks;
  stats.num_cached_blocks = scheduler.num_cached_blocks;
  stats.num_blocks = scheduler.num_blocks;
  stats.num_free_host_blocks = scheduler.num_free_host_blocks;
  stats.num_host_blocks = scheduler.num_host_blocks;
  stats.num_preemptions = scheduler.num_preemptions;
  stats.num_swaps = scheduler.num_swaps;
  stats.num_wasted_rows = scheduler.num_wasted_rows;
  stats.prefix_query_tokens = scheduler.prefix_query_tokens;
  stats.prefix_device_hit_tokens = scheduler.prefix_device_hit_tokens;
  stats.prefix_host_hit_tokens = scheduler.prefix_host_hit_tokens;
  stats.num_steps = snapshot.num_steps;
  stats.step_tokens = step_loop_.step_tokens();
  stats.paused = snapshot.paused;
  stats.prompt_tokens = counters.prompt_tokens;
  stats.output_tokens = counters.output_tokens;
  stats.finished_requests = counters.finished_requests;
  return stats;
}

}  // namespace

std::unique_ptr<Engine> MakeEngine(EngineParts parts) {
  CHECK(parts.executor != nullptr && parts.tokenizer != nullptr);
  return std::make_unique<RunningEngine>(std::move(parts));
}

}  // namespace fastgen
