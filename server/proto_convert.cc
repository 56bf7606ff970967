#include "server/proto_convert.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check_request.h"
#include "engine/choice_id.h"
#include "server/build_info.h"
#include "server/grpc_status.h"

namespace fastgen {
namespace {

constexpr int kMaxMessages = 4096;
constexpr absl::Duration kMaxResumeWindow = absl::Hours(1);

bool IsPlainIdentifier(const std::string& id) {
  for (const char c : id) {
    if (c < '!' || c > '~') return false;
  }
  return true;
}

void CheckRequestId(const std::string& id, Violations* violations) {
  // It goes into logs and headers.
  if (!IsPlainIdentifier(id)) {
    violations->Add("request_id", "may hold only printable ASCII without spaces");
  }
}

std::string TooMany(int64_t count, const char* what, int64_t limit) {
  return absl::StrCat(count, " ", what, " exceed the limit of ", limit);
}

void ConvertLogitBias(const v1::Sampling& proto, SamplingParams* sampling, Violations* violations) {
  if (proto.logit_bias().size() > kMaxLogitBiases) {
    violations->Add("sampling.logit_bias",
                    TooMany(static_cast<int64_t>(proto.logit_bias().size()), "tokens",
                            kMaxLogitBiases));
    return;
  }
  for (const auto& [token, bias] : proto.logit_bias()) {
    if (!std::isfinite(bias)) {
      violations->Add("sampling.logit_bias",
                      absl::StrCat("the bias of token ", token, " is not a finite number"));
      return;
    }
    sampling->logit_bias.emplace_back(token, bias);
  }
  // A map comes in any order; what the engine gets does not depend on it.
  std::sort(sampling->logit_bias.begin(), sampling->logit_bias.end());
}

void ConvertBadWords(const v1::Sampling& proto, SamplingParams* sampling, Violations* violations) {
  if (proto.bad_words_size() > kMaxBadWords) {
    violations->Add("sampling.bad_words", TooMany(proto.bad_words_size(), "strings", kMaxBadWords));
    return;
  }
  for (const std::string& word : proto.bad_words()) {
    if (word.empty()) {
      violations->Add("sampling.bad_words", "an empty string is in every output");
      return;
    }
    if (word.size() > kMaxBadWordBytes) {
      violations->Add("sampling.bad_words",
                      absl::StrCat("a string of ", word.size(), " bytes exceeds the limit of ",
                                   kMaxBadWordBytes));
      return;
    }
    sampling->bad_words.push_back(word);
  }
}

SamplingParams ConvertSampling(const v1::Sampling& proto, const SamplingDefaults& defaults,
                               Violations* violations) {
  SamplingParams sampling;
  sampling.temperature = defaults.temperature.value_or(sampling.temperature);
  sampling.top_p = defaults.top_p.value_or(sampling.top_p);
  sampling.top_k = defaults.top_k.value_or(sampling.top_k);
  sampling.min_p = defaults.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = defaults.repetition_penalty.value_or(sampling.repetition_penalty);
  if (proto.has_temperature()) sampling.temperature = proto.temperature();
  if (proto.has_top_p()) sampling.top_p = proto.top_p();
  if (proto.has_top_k()) sampling.top_k = proto.top_k();
  if (proto.has_min_p()) sampling.min_p = proto.min_p();
  if (proto.has_seed()) sampling.seed = proto.seed();
  if (proto.has_presence_penalty()) sampling.presence_penalty = proto.presence_penalty();
  if (proto.has_frequency_penalty()) sampling.frequency_penalty = proto.frequency_penalty();
  if (proto.has_repetition_penalty()) sampling.repetition_penalty = proto.repetition_penalty();
  ConvertLogitBias(proto, &sampling, violations);
  if (proto.allowed_token_ids_size() > kMaxAllowedTokenIds) {
    violations->Add("sampling.allowed_token_ids", TooMany(proto.allowed_token_ids_size(), "ids",
                                                          kMaxAllowedTokenIds));
  } else {
    sampling.allowed_token_ids.assign(proto.allowed_token_ids().begin(),
                                      proto.allowed_token_ids().end());
  }
  ConvertBadWords(proto, &sampling, violations);
  return sampling;
}

StoppingParams ConvertStopping(const v1::Stopping& proto) {
  StoppingParams stopping;
  if (proto.has_max_tokens()) stopping.max_tokens = proto.max_tokens();
  if (proto.has_min_tokens()) stopping.min_tokens = proto.min_tokens();
  stopping.stop.assign(proto.stop().begin(), proto.stop().end());
  stopping.stop_token_ids.assign(proto.stop_token_ids().begin(), proto.stop_token_ids().end());
  if (proto.has_include_stop()) stopping.include_stop = proto.include_stop();
  if (proto.has_ignore_eos()) stopping.ignore_eos = proto.ignore_eos();
  if (proto.has_skip_special_tokens()) stopping.skip_special_tokens = proto.skip_special_tokens();
  return stopping;
}

void ConvertOutput(const v1::Output& proto, ConvertedRequest* converted) {
  OutputParams& output = converted->request.output;
  DeltaFields& fields = converted->fields;
  if (proto.has_text()) fields.text = proto.text();
  fields.token_ids = output.token_ids = proto.token_ids();
  if (proto.has_logprobs()) {
    output.logprobs = proto.logprobs();
    fields.logprobs = true;
  }
  if (proto.has_prompt_logprobs()) output.prompt_logprobs = proto.prompt_logprobs();
  output.echo = proto.echo();
  // An echoed prompt is output as well: its tokens come with the logprobs that output tokens come with.
  fields.prompt_logprobs = proto.has_prompt_logprobs() || (proto.echo() && proto.has_logprobs());
  output.progress = proto.progress();
  fields.raw_bytes = proto.bytes();
  output.reasoning = proto.reasoning();
  output.tool_calls = proto.tool_calls();
}

void ConvertConstraint(const v1::Constraint& proto, Constraint* constraint,
                       Violations* violations) {
  const auto text = [&](Constraint::Kind kind, const std::string& from) {
    constraint->kind = kind;
    constraint->text = from;
  };
  switch (proto.kind_case()) {
    case v1::Constraint::kJsonSchema:
      text(Constraint::Kind::kJsonSchema, proto.json_schema());
      break;
    case v1::Constraint::kJsonObject:
      constraint->kind = Constraint::Kind::kJsonObject;
      if (!proto.json_object()) {
        violations->Add("constraint.json_object", "false constrains nothing; leave it out");
      }
      break;
    case v1::Constraint::kRegex:
      text(Constraint::Kind::kRegex, proto.regex());
      break;
    case v1::Constraint::kChoice:
      constraint->kind = Constraint::Kind::kChoice;
      constraint->choices.assign(proto.choice().choices().begin(), proto.choice().choices().end());
      break;
    case v1::Constraint::kGrammar:
      text(Constraint::Kind::kGrammar, proto.grammar());
      break;
    case v1::Constraint::kStructuralTag:
      text(Constraint::Kind::kStructuralTag, proto.structural_tag());
      break;
    case v1::Constraint::kToolCalls:
      constraint->kind = Constraint::Kind::kToolCalls;
      constraint->tool = proto.tool_calls().name();
      constraint->single = proto.tool_calls().single();
      constraint->optional = proto.tool_calls().optional();
      break;
    case v1::Constraint::KIND_NOT_SET:
      violations->Add("constraint", "is empty");
      break;
  }
  constraint->or_tool_calls = proto.or_tool_calls();
}

void ConvertCounts(const v1::GenerateRequest& proto, GenerateRequest* request,
                   Violations* violations) {
  const auto outside = [](int32_t value, int32_t low) {
    return absl::StrCat(value, " is outside [", low, ", ", kMaxChoices, "]");
  };
  request->n = proto.has_n() ? proto.n() : 1;
  if (request->n < 1 || request->n > kMaxChoices) {
    violations->Add("n", outside(request->n, 1));
    return;
  }
  request->best_of = proto.has_best_of() ? proto.best_of() : request->n;
  if (request->best_of < request->n || request->best_of > kMaxChoices) {
    violations->Add("best_of", absl::StrCat(outside(request->best_of, request->n),
                                            "; n is ", request->n));
  }
}

void ConvertScheduling(const v1::GenerateRequest& proto, ConvertedRequest* converted,
                       Violations* violations) {
  converted->request.priority = proto.priority();
  if (proto.cache_salt().size() > kMaxCacheSaltBytes) {
    violations->Add("cache_salt", absl::StrCat(proto.cache_salt().size(),
                                               " bytes exceed the limit of ", kMaxCacheSaltBytes));
  } else {
    converted->request.cache_salt = proto.cache_salt();
  }
  const auto& window = proto.resume_window();
  const absl::Duration resume_window =
      absl::Seconds(window.seconds()) + absl::Nanoseconds(window.nanos());
  if (window.seconds() < 0 || window.nanos() < 0 || window.nanos() > 999'999'999 ||
      resume_window > kMaxResumeWindow) {
    violations->Add("resume_window",
                    absl::StrCat(absl::FormatDuration(resume_window), " is outside [0, ",
                                 absl::FormatDuration(kMaxResumeWindow), "]"));
  } else {
    converted->resume_window = resume_window;
  }
  if (proto.has_constraint()) {
    ConvertConstraint(proto.constraint(), &converted->request.constraint, violations);
  }
}

ChatPrompt ConvertChat(const v1::Chat& proto, const std::string& path, Violations* violations) {
  ChatPrompt chat;
  if (proto.messages().empty()) violations->Add(absl::StrCat(path, ".messages"), "is empty");
  if (proto.messages_size() > kMaxMessages) {
    violations->Add(absl::StrCat(path, ".messages"),
                    absl::StrCat("has ", proto.messages_size(), " messages; at most ", kMaxMessages));
    return chat;
  }
  for (int i = 0; i < proto.messages_size(); ++i) {
    const v1::ChatMessage& from = proto.messages(i);
    ChatMessage message;
    if (from.role().empty()) {
      violations->Add(absl::StrCat(path, ".messages[", i, "].role"), "is empty");
    }
    message.role = from.role();
    if (from.has_content()) message.content = from.content();
    message.name = from.name();
    message.tool_call_id = from.tool_call_id();
    if (from.has_reasoning_content()) message.reasoning_content = from.reasoning_content();
    for (const v1::ToolCall& call : from.tool_calls()) {
      message.tool_calls.push_back({call.id(), call.name(), call.arguments_json()});
    }
    chat.messages.push_back(std::move(message));
  }
  chat.tools_json.assign(proto.tools_json().begin(), proto.tools_json().end());
  chat.template_kwargs_json = proto.chat_template_kwargs_json();
  if (proto.has_continue_final_message()) {
    chat.continue_final_message = proto.continue_final_message();
  }
  // Continuing a message and opening a new one exclude each other; asking for both by name is an error.
  chat.add_generation_prompt =
      proto.has_add_generation_prompt() ? proto.add_generation_prompt() : !chat.continue_final_message;
  if (chat.continue_final_message && chat.add_generation_prompt) {
    violations->Add(absl::StrCat(path, ".continue_final_message"),
                    "cannot be combined with add_generation_prompt");
  }
  return chat;
}

void ConvertPrompt(const v1::GenerateRequest& proto, GenerateRequest* request,
                   Violations* violations) {
  switch (proto.prompt_case()) {
    case v1::GenerateRequest::kText:
      request->prompt = TextPrompt{proto.text()};
      return;
    case v1::GenerateRequest::kTokenIds:
      request->prompt =
          TokenPrompt{{proto.token_ids().ids().begin(), proto.token_ids().ids().end()}};
      break;
    case v1::GenerateRequest::kChat:
      request->prompt = ConvertChat(proto.chat(), "chat", violations);
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      violations->Add("prompt", "one of text, token_ids and chat is needed");
      return;
  }
  // Ids and chats are tokenised in one way only, so asking for another cannot be honoured.
  if (proto.has_add_special_tokens()) {
    violations->Add("add_special_tokens", "applies to text prompts only");
  }
  if (proto.has_parse_special()) violations->Add("parse_special", "applies to text prompts only");
}

void ConvertLogprob(const TokenLogprob& from, v1::TokenLogprob* to) {
  to->set_token(from.token);
  to->set_logprob(from.logprob);
  to->set_rank(from.rank);
  to->set_bytes(from.bytes);
  for (const TokenLogprob::Candidate& candidate : from.top) {
    auto* top = to->add_top();
    top->set_token(candidate.token);
    top->set_logprob(candidate.logprob);
    top->set_bytes(candidate.bytes);
  }
}

// Pieces of one call that wait together become one.
void AppendToolCalls(std::vector<ToolCallDelta> calls, v1::Delta* proto) {
  for (ToolCallDelta& call : calls) {
    const int last = proto->tool_calls_size() - 1;
    if (last >= 0 && proto->tool_calls(last).index() == call.index) {
      proto->mutable_tool_calls(last)->mutable_arguments()->append(call.arguments);
      continue;
    }
    v1::ToolCallDelta* piece = proto->add_tool_calls();
    piece->set_index(call.index);
    piece->set_id(std::move(call.id));
    piece->set_name(std::move(call.name));
    piece->set_arguments(std::move(call.arguments));
  }
}

void ConvertDuration(absl::Duration from, google::protobuf::Duration* to) {
  absl::Duration rest;
  to->set_seconds(absl::IDivDuration(from, absl::Seconds(1), &rest));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

v1::FinishReason ConvertReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return v1::STOP;
    case FinishReason::kLength: return v1::LENGTH;
    case FinishReason::kCancelled: return v1::CANCELLED;
    case FinishReason::kDeadline: return v1::DEADLINE;
    case FinishReason::kError: return v1::ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void CollectUnknownFields(const google::protobuf::Message& message, const std::string& path,
                          std::vector<std::string>* paths) {
  const auto add = [&](const std::string& found) {
    for (const std::string& known : *paths) {
      if (known == found) return;
    }
    if (paths->size() < kMaxIgnoredFields) paths->push_back(found);
  };
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const auto& unknown = reflection.GetUnknownFields(message);
  // A hostile message holds millions of them: strings are made once for each number only.
  std::vector<int> numbers;
  for (int i = 0; i < unknown.field_count() && numbers.size() < kMaxIgnoredFields; ++i) {
    const int number = unknown.field(i).number();
    if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) continue;
    numbers.push_back(number);
    add(absl::StrCat(path, number));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (field->is_map()) continue;  // an entry's own unknown fields carry nothing
    const std::string inner = absl::StrCat(path, field->name(), ".");
    if (!field->is_repeated()) {
      CollectUnknownFields(reflection.GetMessage(message, field), inner, paths);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      CollectUnknownFields(reflection.GetRepeatedMessage(message, field, i), inner, paths);
    }
  }
}

void ConvertSamplingDefaults(const SamplingDefaults& defaults, v1::Sampling* proto) {
  if (defaults.temperature.has_value()) proto->set_temperature(*defaults.temperature);
  if (defaults.top_p.has_value()) proto->set_top_p(*defaults.top_p);
  if (defaults.top_k.has_value()) proto->set_top_k(*defaults.top_k);
  if (defaults.min_p.has_value()) proto->set_min_p(*defaults.min_p);
  if (defaults.repetition_penalty.has_value()) {
    proto->set_repetition_penalty(*defaults.repetition_penalty);
  }
}

}  // namespace

absl::StatusOr<ConvertedRequest> FromProto(const v1::GenerateRequest& proto,
                                           const SamplingDefaults& defaults) {
  Violations violations;
  ConvertedRequest converted;
  GenerateRequest& request = converted.request;
  CheckRequestId(proto.request_id(), &violations);
  request.request_id = proto.request_id();
  ConvertPrompt(proto, &request, &violations);
  request.sampling = ConvertSampling(proto.sampling(), defaults, &violations);
  request.stopping = ConvertStopping(proto.stopping());
  ConvertOutput(proto.output(), &converted);
  if (proto.has_add_special_tokens()) request.add_special_tokens = proto.add_special_tokens();
  if (proto.has_parse_special()) request.parse_special = proto.parse_special();
  ConvertCounts(proto, &request, &violations);
  ConvertScheduling(proto, &converted, &violations);
  const absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return converted;
}

absl::StatusOr<ChatPrompt> FromProto(const v1::Chat& proto, const std::string& path) {
  Violations violations;
  ChatPrompt chat = ConvertChat(proto, path, &violations);
  const absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return chat;
}

std::vector<std::string> UnknownFields(const google::protobuf::Message& message) {
  std::vector<std::string> paths;
  CollectUnknownFields(message, "", &paths);
  return paths;
}

absl::Status RefuseFields(const std::vector<std::string>& paths, const std::string& why) {
  Violations violations;
  for (const std::string& path : paths) violations.Add(path, why);
  return violations.ToStatus();
}

void ToProto(const AcceptedInfo& info, const DeltaFields& fields, v1::Accepted* proto) {
  proto->set_request_id(info.request_id);
  proto->set_prompt_tokens(info.prompt_tokens);
  proto->set_cached_tokens(info.cached_tokens);
  if (fields.token_ids) {
    proto->mutable_prompt_token_ids()->Assign(info.prompt_token_ids.begin(),
                                              info.prompt_token_ids.end());
  }
}

void AppendToProto(TokenDelta delta, const DeltaFields& fields, v1::Delta* proto) {
  proto->set_index(delta.index);
  proto->set_num_tokens(proto->num_tokens() + NumOutputTokens(delta));
  if (fields.text) {
    if (proto->text().empty()) {
      proto->set_text(std::move(delta.text));
    } else {
      proto->mutable_text()->append(delta.text);
    }
  }
  if (fields.text) {
    proto->mutable_reasoning()->append(delta.reasoning);
    AppendToolCalls(std::move(delta.tool_calls), proto);
  }
  if (fields.token_ids) {
    proto->mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  }
  if (fields.prompt_logprobs) {
    for (const TokenLogprob& logprob : delta.prompt_logprobs) {
      ConvertLogprob(logprob, proto->add_prompt_logprobs());
    }
  }
  if (fields.logprobs) {
    for (const TokenLogprob& logprob : delta.logprobs) {
      ConvertLogprob(logprob, proto->add_logprobs());
    }
  }
}

int32_t NumOutputTokens(const TokenDelta& delta) {
  return static_cast<int32_t>(delta.token_ids.size()) - delta.num_prompt_tokens;
}

void ToProto(const FinishInfo& info, const ModelInfo& model, v1::Finished* proto) {
  proto->set_index(info.index);
  proto->set_reason(ConvertReason(info.reason));
  if (!info.matched_stop.empty()) {
    proto->set_matched_stop(info.matched_stop);
  } else if (info.matched_token_id.has_value()) {
    proto->set_matched_token_id(*info.matched_token_id);
  }
  v1::Usage* usage = proto->mutable_usage();
  usage->set_prompt_tokens(info.usage.prompt_tokens);
  usage->set_cached_tokens(info.usage.cached_tokens);
  usage->set_output_tokens(info.usage.output_tokens);
  usage->set_reasoning_tokens(info.usage.reasoning_tokens);
  proto->set_num_tool_calls(info.num_tool_calls);
  v1::Receipt* receipt = proto->mutable_receipt();
  ConvertDuration(info.receipt.queue_time, receipt->mutable_queue_time());
  ConvertDuration(info.receipt.prefill_time, receipt->mutable_prefill_time());
  ConvertDuration(info.receipt.decode_time, receipt->mutable_decode_time());
  receipt->set_num_chunks(info.receipt.num_chunks);
  receipt->set_num_steps(info.receipt.num_steps);
  receipt->set_num_preemptions(info.receipt.num_preemptions);
  receipt->set_num_page_ins(info.receipt.num_page_ins);
  receipt->set_seed(info.receipt.seed);
  receipt->set_weights_hash(model.weights_hash);
  receipt->set_build(std::string(BuildInfo()));
}

void ToProto(const ModelInfo& info, const MemoryReport& memory, v1::ModelInfo* proto) {
  proto->set_name(info.name);
  proto->set_architecture(info.architecture);
  proto->set_context_length(info.context_length);
  proto->set_vocab_size(info.vocab_size);
  proto->set_dtype(info.dtype);
  proto->set_backend(info.backend);
  proto->set_weights_hash(info.weights_hash);
  if (info.bos_id.has_value()) proto->set_bos_id(*info.bos_id);
  proto->mutable_eos_ids()->Assign(info.eos_ids.begin(), info.eos_ids.end());
  proto->set_bos_token(info.bos_token);
  proto->set_eos_token(info.eos_token);
  proto->set_has_chat_template(info.has_chat_template);
  proto->set_tool_call_parser(info.tool_call_parser);
  proto->set_reasoning_parser(info.reasoning_parser);
  ConvertSamplingDefaults(info.sampling_defaults, proto->mutable_sampling_defaults());
  proto->set_build(std::string(BuildInfo()));
  proto->set_weights_bytes(memory.weights_bytes);
  proto->set_kv_bytes(memory.kv_bytes);
  proto->set_workspace_bytes(memory.workspace_bytes);
  proto->set_num_blocks(memory.num_blocks);
  proto->set_block_size(memory.block_size);
}

void ToProto(const PlanInfo& info, v1::PlanResponse* proto) {
  proto->set_fits(info.fits);
  proto->set_reason(info.reason);
  proto->set_prompt_tokens(info.prompt_tokens);
  proto->set_cached_tokens_device(info.cached_tokens_device);
  proto->set_cached_tokens_host(info.cached_tokens_host);
  proto->set_queue_position(info.queue_position);
  ConvertDuration(info.estimated_ttft, proto->mutable_estimated_ttft());
}

void ToProto(const RequestInfo& info, v1::RequestInfo* proto) {
  proto->set_request_id(info.request_id);
  switch (info.phase) {
    case RequestInfo::Phase::kQueued: proto->set_phase("queued"); break;
    case RequestInfo::Phase::kPrefill: proto->set_phase("prefill"); break;
    case RequestInfo::Phase::kDecode: proto->set_phase("decode"); break;
  }
  proto->set_prompt_tokens(info.prompt_tokens);
  proto->set_output_tokens(info.output_tokens);
  proto->set_priority(info.priority);
  ConvertDuration(info.age, proto->mutable_age());
}

void ToProto(const EngineStats& stats, v1::Stats* proto) {
  proto->set_num_running(stats.num_running);
  proto->set_num_waiting(stats.num_waiting);
  proto->set_num_free_blocks(stats.num_free_blocks);
  proto->set_num_blocks(stats.num_blocks);
  proto->set_num_preemptions(stats.num_preemptions);
  proto->set_num_steps(stats.num_steps);
  proto->set_prompt_tokens(stats.prompt_tokens);
  proto->set_output_tokens(stats.output_tokens);
  proto->set_finished_requests(stats.finished_requests);
  proto->set_prefix_query_tokens(stats.prefix_query_tokens);
  proto->set_prefix_device_hit_tokens(stats.prefix_device_hit_tokens);
  proto->set_prefix_host_hit_tokens(stats.prefix_host_hit_tokens);
  proto->set_num_cached_blocks(stats.num_cached_blocks);
  proto->set_num_host_blocks(stats.num_host_blocks);
  proto->set_num_free_host_blocks(stats.num_free_host_blocks);
  proto->set_num_swaps(stats.num_swaps);
  proto->set_num_wasted_rows(stats.num_wasted_rows);
  proto->set_num_queued_tokens(stats.num_queued_tokens);
  proto->set_paused(stats.paused);
}

absl::Status StatusOfFinish(const FinishInfo& info) {
  switch (info.reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return absl::OkStatus();
    case FinishReason::kCancelled:
      return absl::CancelledError("the request was cancelled");
    case FinishReason::kDeadline:
      return absl::DeadlineExceededError("the request's deadline has passed");
    case FinishReason::kError:
      break;
  }
  return absl::Status(info.error_code, info.error.empty() ? "the request failed" : info.error);
}

}  // namespace fastgen
