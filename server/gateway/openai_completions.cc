#include "server/gateway/openai_completions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/json_text.h"
#include "server/gateway/refused_fields.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

// Every prompt becomes a call with its own copy of the shared fields.
constexpr size_t kMaxCopiedBytes = 64 << 20;
constexpr size_t kMaxPrompts = 1024;
constexpr size_t kMaxChoices = 1024;
constexpr int32_t kDefaultMaxTokens = 16;  // OpenAI's
constexpr std::string_view kPromptKinds =
    "prompt must be a string, a list of strings, token ids or lists of token ids";

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

bool ReadIds(const json::array& ids, v1::GenerateRequest* call) {
  auto* out = call->mutable_token_ids()->mutable_ids();
  out->Reserve(static_cast<int>(ids.size()));
  for (const json::value& item : ids) {
    const std::optional<int32_t> id = TokenIdOf(item);
    if (!id.has_value()) return false;
    out->Add(*id);
  }
  return true;
}

// One call for each prompt, each a copy of `call`.
void ReadPrompts(JsonFields* fields, const v1::GenerateRequest& call,
                 std::vector<v1::GenerateRequest>* calls) {
  const json::value* prompt = fields->Find("prompt");
  if (prompt == nullptr) {
    fields->Fail("prompt", "prompt is missing", "missing");
    return;
  }
  if (prompt->is_string()) {
    calls->push_back(call);
    calls->back().set_text(std::string(View(prompt->get_string())));
    return;
  }
  if (!prompt->is_array() || prompt->get_array().empty()) {
    fields->Fail("prompt", std::string(kPromptKinds), "invalid_type");
    return;
  }
  const json::array& list = prompt->get_array();
  if (list[0].is_number()) {
    calls->push_back(call);
    if (!ReadIds(list, &calls->back()))
      fields->Fail("prompt", std::string(kPromptKinds), "invalid_type");
    return;
  }
  if (list.size() > kMaxPrompts) {
    fields->Fail("prompt",
                 absl::StrCat("prompt has ", list.size(), " items; the limit is ", kMaxPrompts));
    return;
  }
  if (call.ByteSizeLong() * list.size() > kMaxCopiedBytes) {
    fields->Fail("prompt", "prompt has too many items for parameters of this size");
    return;
  }
  for (const json::value& item : list) {
    calls->push_back(call);
    if (item.kind() == list[0].kind() && item.is_string()) {
      calls->back().set_text(std::string(View(item.get_string())));
      continue;
    }
    if (item.kind() != list[0].kind() || !item.is_array() || item.get_array().empty() ||
        !ReadIds(item.get_array(), &calls->back())) {
      fields->Fail("prompt", std::string(kPromptKinds), "invalid_type");
      return;
    }
  }
}

void ReadOwnFields(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request) {
  v1::Output* output = call->mutable_output();
  const bool echo = fields->Bool("echo").value_or(false);
  const std::optional<int64_t> logprobs = fields->Int("logprobs", 0, kMaxLogprobs);
  if (echo) output->set_echo(true);
  request->options.echo = echo;
  if (logprobs.has_value()) {
    request->options.logprobs = true;
    output->set_logprobs(static_cast<int32_t>(*logprobs));
    request->options.top_logprobs = output->logprobs();
    if (echo) {
      output->set_prompt_logprobs(std::max(output->logprobs(), output->prompt_logprobs()));
    }
  }
  if (!call->stopping().has_max_tokens()) {
    call->mutable_stopping()->set_max_tokens(kDefaultMaxTokens);
  } else if (call->stopping().max_tokens() == 0 && !echo &&
             !request->options.prompt_logprobs.has_value()) {
    fields->Fail(request->names.max_tokens,
                 absl::StrCat(ToAbsl(request->names.max_tokens),
                              " 0 asks for no output; it needs echo or prompt_logprobs"));
  }
  if (auto v = fields->Bool("add_special_tokens")) call->set_add_special_tokens(*v);
  if (auto v = fields->Bool("parse_special")) call->set_parse_special(*v);
  RefuseFields(RefusedOn::kCompletions, fields);
}

struct LegacyLists {
  std::string* tokens;
  std::string* token_logprobs;
  std::string* top_logprobs;
  std::string* text_offset;
};

void AppendComma(std::string* list) {
  if (!list->empty()) list->push_back(',');
}

std::string TokenText(const AnswerOptions& options, int32_t id, std::string_view bytes) {
  return options.tokens_as_ids ? absl::StrCat("token_id:", id) : ToValidUtf8(bytes);
}

// {"token": logprob, ...}: the best ones, and the token's own when it is not among them. Two tokens
// may read alike (halves of characters); the better one stays, since a JSON object holds a name
// once.
void AppendTop(const AnswerOptions& options, const v1::TokenLogprob& token, std::string* out) {
  std::vector<std::string> seen;
  out->push_back('{');
  const auto add = [&](int32_t id, std::string_view bytes, float logprob) {
    std::string text = TokenText(options, id, bytes);
    if (std::find(seen.begin(), seen.end(), text) != seen.end()) return;
    if (!seen.empty()) out->push_back(',');
    AppendJsonString(text, out);
    out->push_back(':');
    AppendJsonFloat(logprob, out);
    seen.push_back(std::move(text));
  };
  const int num_top = std::min(token.top_size(), options.top_logprobs);
  for (int i = 0; i < num_top; ++i) {
    add(token.top(i).token(), token.top(i).bytes(), token.top(i).logprob());
  }
  add(token.token(), token.bytes(), token.logprob());
  out->push_back('}');
}

void AppendLegacy(const AnswerOptions& options,
                  const google::protobuf::RepeatedPtrField<v1::TokenLogprob>& logprobs,
                  size_t* text_offset, const LegacyLists& lists) {
  for (const v1::TokenLogprob& token : logprobs) {
    AppendComma(lists.tokens);
    AppendJsonString(TokenText(options, token.token(), token.bytes()), lists.tokens);
    AppendComma(lists.token_logprobs);
    AppendComma(lists.top_logprobs);
    if (token.rank() == 0) {  // the first prompt token has none
      lists.token_logprobs->append("null");
      lists.top_logprobs->append("null");
    } else {
      AppendJsonFloat(token.logprob(), lists.token_logprobs);
      AppendTop(options, token, lists.top_logprobs);
    }
    AppendComma(lists.text_offset);
    AppendJsonInt(static_cast<int64_t>(*text_offset), lists.text_offset);
    *text_offset += NumCodePoints(ToValidUtf8(token.bytes()));
  }
}

void AppendLegacyJson(const std::string (&lists)[4], std::string* out) {
  absl::StrAppend(out, "{\"tokens\":[", lists[0], "],\"token_logprobs\":[", lists[1],
                  "],\"top_logprobs\":[", lists[2], "],\"text_offset\":[", lists[3], "]}");
}

void AppendLegacyDelta(const AnswerOptions& options, const v1::Delta& delta, size_t* text_offset,
                       std::string (*lists)[4]) {
  const LegacyLists legacy = {&(*lists)[0], &(*lists)[1], &(*lists)[2], &(*lists)[3]};
  if (options.echo) AppendLegacy(options, delta.prompt_logprobs(), text_offset, legacy);
  AppendLegacy(options, delta.logprobs(), text_offset, legacy);
}

std::string ChunkHead(const AnswerOptions& options) {
  return absl::StrCat(ToAbsl(kSseDataPrefix), AnswerHead(options, "text_completion"),
                      ",\"choices\":[{\"index\":");
}

}  // namespace

std::optional<ApiError> ParseCompletionsRequest(std::string_view body, GenerationRequest* request) {
  std::optional<ApiError> error;
  const std::optional<json::object> object = ParseJsonObject(body, &error);
  if (!object.has_value()) return error;
  JsonFields fields(*object, "", &error);
  v1::GenerateRequest call;
  ReadSharedFields(&fields, &call, request);
  ReadOwnFields(&fields, &call, request);
  if (error.has_value()) return error;
  ReadPrompts(&fields, call, &request->calls);
  if (request->calls.size() * request->num_answers > kMaxChoices) {
    fields.Fail("n", absl::StrCat(request->calls.size(), " prompts with n ", request->num_answers,
                                  " make more than ", kMaxChoices, " choices"));
  }
  if (error.has_value()) return error;
  fields.AppendUnknown(&request->ignored);
  return std::nullopt;
}

CompletionsFormat::CompletionsFormat(const AnswerOptions& options)
    : options_(options), chunk_head_(ChunkHead(options)) {}

void CompletionsFormat::SetSystemFingerprint(const std::string& fingerprint) {
  options_.system_fingerprint = fingerprint;
  chunk_head_ = ChunkHead(options_);
}

// The first chunk of a choice is its first text, except that the prompt's ids need one of their
// own.
void CompletionsFormat::AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                                      std::string* out) {
  if (!options_.return_token_ids) return;
  out->append(chunk_head_);
  AppendJsonInt(choice.index, out);
  out->append(",\"text\":\"\",\"logprobs\":null,\"finish_reason\":null,\"prompt_token_ids\":");
  out->append(prompt.token_ids_json);
  out->append("}]");
  AppendChunkUsage(options_, choice, prompt, out);
  out->append("}\n\n");
}

void CompletionsFormat::AppendDelta(const v1::Delta& delta, ChoiceState* choice,
                                    const PromptState& prompt, std::string* out) {
  const bool ids = options_.return_token_ids && delta.token_ids_size() > 0;
  const bool logprobs =
      options_.logprobs &&
      delta.logprobs_size() + (options_.echo ? delta.prompt_logprobs_size() : 0) > 0;
  if (delta.text().empty() && !ids && !logprobs) return;
  out->append(chunk_head_);
  AppendJsonInt(choice->index, out);
  out->append(",\"text\":");
  AppendJsonString(delta.text(), out);
  out->append(",\"logprobs\":");
  if (logprobs) {
    std::string lists[4];
    AppendLegacyDelta(options_, delta, &choice->text_offset, &lists);
    AppendLegacyJson(lists, out);
  } else {
    out->append("null");
  }
  AppendDeltaTail(options_, delta, *choice, prompt, out);
}

void CompletionsFormat::AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                                     std::string* out) {
  out->append(chunk_head_);
  AppendJsonInt(choice.index, out);
  out->append(",\"text\":\"\",\"logprobs\":null");
  AppendFinishTail(options_, choice, prompt, out);
}

void CompletionsFormat::AppendUsage(const AnswerUsage& usage, std::string* out) {
  AppendUsageChunk(options_, "text_completion", usage, out);
}

void CompletionsFormat::Keep(const v1::Delta& delta, ChoiceState* choice) {
  choice->text += delta.text();
  if (options_.return_token_ids) AppendIds(delta.token_ids(), &choice->token_ids);
  if (options_.logprobs)
    AppendLegacyDelta(options_, delta, &choice->text_offset, &choice->logprobs);
}

std::string CompletionsFormat::Whole(const std::vector<ChoiceState>& choices,
                                     const std::vector<PromptState>& prompts,
                                     const AnswerUsage& usage) {
  std::string out = AnswerHead(options_, "text_completion");
  out += ",\"choices\":[";
  for (const ChoiceState& choice : choices) {
    if (choice.index > 0) out += ',';
    out += "{\"index\":";
    AppendJsonInt(choice.index, &out);
    out += ",\"text\":";
    AppendJsonString(choice.text, &out);
    out += ",\"logprobs\":";
    if (options_.logprobs) {
      AppendLegacyJson(choice.logprobs, &out);
    } else {
      out += "null";
    }
    absl::StrAppend(&out, ",\"finish_reason\":\"", ToAbsl(FinishReasonName(options_, choice)),
                    "\",\"stop_reason\":", choice.stop_reason_json);
    if (options_.return_token_ids) {
      absl::StrAppend(&out, ",\"token_ids\":[", choice.token_ids, "],\"prompt_token_ids\":",
                      prompts[static_cast<size_t>(choice.prompt)].token_ids_json);
    }
    AppendPromptLogprobs(options_, prompts[static_cast<size_t>(choice.prompt)], &out);
    out += '}';
  }
  out += "],\"usage\":";
  AppendUsageJson(usage, &out);
  out += '}';
  return out;
}

}  // namespace fastgen::gateway
