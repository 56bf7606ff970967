#include "server/gateway/generation_request.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/constraint_fields.h"
#include "server/gateway/refused_fields.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxStopStrings = 64;
constexpr size_t kMaxStopIds = 1024;
// The daemon's own limits, here so that nothing larger is ever copied.
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxBadWords = 256;
constexpr size_t kMaxAllowedIds = 256 << 10;
constexpr size_t kMaxModelBytes = 1024;
constexpr size_t kMaxSaltBytes = 256;
constexpr int32_t kMaxAnswers = 128;
std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

void ReadLogitBias(JsonFields* fields, v1::Sampling* sampling) {
  const json::object* biases = fields->Object("logit_bias");
  if (biases == nullptr) return;
  if (biases->size() > kMaxBiases) {
    fields->Fail("logit_bias", absl::StrCat("logit_bias has ", biases->size(),
                                            " items; the limit is ", kMaxBiases));
    return;
  }
  for (const auto& item : *biases) {
    const std::string_view key(item.key().data(), item.key().size());
    int32_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    const bool whole = parsed.ec == std::errc() && parsed.ptr == key.data() + key.size() && id >= 0;
    if (!whole || !item.value().is_number()) {
      fields->Fail("logit_bias", "logit_bias must map token ids to numbers", "invalid_type");
      return;
    }
    const double bias = item.value().to_number<double>();
    if (!(bias >= -100 && bias <= 100)) {
      fields->Fail("logit_bias", "logit_bias: a bias must be between -100 and 100");
      return;
    }
    (*sampling->mutable_logit_bias())[id] = static_cast<float>(bias);
  }
}

void ReadPenalties(JsonFields* fields, v1::Sampling* sampling) {
  if (auto v = fields->Float("presence_penalty")) sampling->set_presence_penalty(*v);
  if (auto v = fields->Float("frequency_penalty")) sampling->set_frequency_penalty(*v);
  if (auto v = fields->Float("repetition_penalty")) sampling->set_repetition_penalty(*v);
  ReadLogitBias(fields, sampling);
  if (auto ids = fields->Ids("allowed_token_ids", kMaxAllowedIds)) {
    sampling->mutable_allowed_token_ids()->Add(ids->begin(), ids->end());
  }
  const json::array* bad_words = fields->Array("bad_words", kMaxBadWords);
  if (bad_words == nullptr) return;
  for (const json::value& word : *bad_words) {
    if (!word.is_string()) {
      fields->Fail("bad_words", "bad_words must be a list of strings", "invalid_type");
      return;
    }
    sampling->add_bad_words(std::string(View(word.get_string())));
  }
}

}  // namespace

void ReadSampling(JsonFields* fields, v1::Sampling* sampling) {
  if (auto v = fields->Float("temperature")) sampling->set_temperature(*v);
  if (auto v = fields->Float("top_p")) sampling->set_top_p(*v);
  // -1 is how vLLM's clients say "off".
  if (auto v = fields->Int32("top_k", -1)) sampling->set_top_k(std::max(*v, 0));
  if (auto v = fields->Float("min_p")) sampling->set_min_p(*v);
  const json::value* seed = fields->Find("seed");
  if (seed != nullptr && seed->is_uint64()) {
    sampling->set_seed(seed->get_uint64());
  } else if (auto v = fields->Int("seed", std::numeric_limits<int64_t>::min(),
                                  std::numeric_limits<int64_t>::max())) {
    sampling->set_seed(static_cast<uint64_t>(*v));
  }
  ReadPenalties(fields, sampling);
}

namespace {

void ReadStop(JsonFields* fields, v1::Stopping* stopping) {
  const json::value* stop = fields->Find("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    stopping->add_stop(std::string(View(stop->get_string())));
    return;
  }
  if (!stop->is_array()) {
    fields->Fail(
        "stop",
        absl::StrCat("stop must be a string or a list of strings, not ", ToAbsl(KindOf(*stop))),
        "invalid_type");
    return;
  }
  const json::array* list = fields->Array("stop", kMaxStopStrings);
  if (list == nullptr) return;
  for (const json::value& item : *list) {
    if (!item.is_string()) {
      fields->Fail("stop", absl::StrCat("stop must hold strings, not ", ToAbsl(KindOf(item))),
                   "invalid_type");
      return;
    }
    stopping->add_stop(std::string(View(item.get_string())));
  }
}

void ReadStopping(JsonFields* fields, v1::Stopping* stopping, GenerationRequest* request) {
  const std::optional<int32_t> max_tokens = fields->Int32("max_tokens");
  const std::optional<int32_t> max_completion_tokens = fields->Int32("max_completion_tokens");
  if (max_tokens.has_value() && max_completion_tokens.has_value() &&
      *max_tokens != *max_completion_tokens) {
    fields->Fail("max_tokens", "max_tokens and max_completion_tokens differ");
  }
  if (max_completion_tokens.has_value()) {
    stopping->set_max_tokens(*max_completion_tokens);
    request->names.max_tokens = "max_completion_tokens";
  } else if (max_tokens.has_value()) {
    stopping->set_max_tokens(*max_tokens);
  }
  if (auto v = fields->Int32("min_tokens")) stopping->set_min_tokens(*v);
  ReadStop(fields, stopping);
  if (auto ids = fields->Ids("stop_token_ids", kMaxStopIds)) {
    stopping->mutable_stop_token_ids()->Add(ids->begin(), ids->end());
    request->options.stop_token_ids = *std::move(ids);
  }
  if (auto v = fields->Bool("include_stop_str_in_output")) stopping->set_include_stop(*v);
  if (auto v = fields->Bool("ignore_eos")) stopping->set_ignore_eos(*v);
  if (auto v = fields->Bool("skip_special_tokens")) stopping->set_skip_special_tokens(*v);
}

void ReadStream(JsonFields* fields, std::optional<ApiError>* error, GenerationRequest* request) {
  AnswerOptions& options = request->options;
  options.stream = fields->Bool("stream").value_or(false);
  const json::object* object = fields->Object("stream_options");
  if (object == nullptr) return;
  if (!options.stream) {
    fields->Fail("stream_options", "stream_options needs stream to be true");
    return;
  }
  JsonFields stream_options(*object, "stream_options", error);
  options.include_usage = stream_options.Bool("include_usage").value_or(false);
  options.continuous_usage = stream_options.Bool("continuous_usage_stats").value_or(false);
  stream_options.Accept({"include_obfuscation"});
  stream_options.AppendUnknown(&request->ignored);
}

// The engine's limit stands for all candidates; "all of them", vLLM's -1, is beyond it.
void ReadPromptLogprobs(JsonFields* fields, v1::Output* output, GenerationRequest* request) {
  const std::optional<int64_t> count = fields->Int("prompt_logprobs", 0, kMaxLogprobs);
  if (!count.has_value()) return;
  if (request->options.stream) {
    fields->Fail("prompt_logprobs", "prompt_logprobs cannot be combined with stream");
  }
  request->names.prompt_logprobs = "prompt_logprobs";
  request->options.prompt_logprobs = static_cast<int32_t>(*count);
  output->set_prompt_logprobs(static_cast<int32_t>(*count));
}

void ReadCount(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request) {
  if (auto v = fields->Int("n", 1, kMaxAnswers); v.value_or(1) != 1) {
    request->num_answers = static_cast<int32_t>(*v);
    call->set_n(request->num_answers);
  }
  if (auto v = fields->Int("best_of", 1, kMaxAnswers);
      v.value_or(request->num_answers) != request->num_answers) {
    call->set_best_of(static_cast<int32_t>(*v));
    if (*v < request->num_answers) {
      fields->Fail("best_of",
                   absl::StrCat("best_of ", *v, " is below n, which is ", request->num_answers));
    }
    // Which ones are the best is known at the end only.
    const json::value* stream = fields->Find("stream");
    if (stream != nullptr && stream->is_bool() && stream->get_bool()) {
      fields->Fail("best_of", absl::StrCat("best_of ", *v, " above n (", request->num_answers,
                                           ") cannot be combined with stream"));
    }
  }
}

}  // namespace

void ReadIdentity(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request) {
  if (auto model = fields->String("model")) {
    if (model->size() > kMaxModelBytes) {
      fields->Fail("model", absl::StrCat("model is longer than ", kMaxModelBytes, " bytes"));
    }
    call->set_model(*model);
    request->options.model = *std::move(model);
  }
  if (auto id = fields->String("request_id")) {
    if (!IsRequestId(*id))
      fields->Fail("request_id", "request_id must be 1 to 128 printable ASCII characters");
    request->request_id = *std::move(id);
  }
  if (auto v = fields->Int32("priority", std::numeric_limits<int32_t>::min()); v.value_or(0) != 0) {
    call->set_priority(*v);
  }
  if (auto salt = fields->String("cache_salt")) {
    if (salt->size() > kMaxSaltBytes) {
      fields->Fail("cache_salt",
                   absl::StrCat("cache_salt is longer than ", kMaxSaltBytes, " bytes"));
    }
    call->set_cache_salt(*std::move(salt));
  }
}

void RefuseNames(JsonFields* fields, std::initializer_list<std::string_view> names,
                 std::string_view why) {
  for (std::string_view name : names) {
    if (fields->Find(name) == nullptr) continue;
    fields->Fail(name, absl::StrCat(fields->PathOf(name), " ", ToAbsl(why)),
                 "unsupported_parameter");
  }
}

namespace {

void ReadControl(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request) {
  ReadIdentity(fields, call, request);
  request->options.tokens_as_ids = fields->Bool("return_tokens_as_token_ids").value_or(false);
  request->options.return_token_ids = fields->Bool("return_token_ids").value_or(false);
  if (request->options.return_token_ids) call->mutable_output()->set_token_ids(true);
}

}  // namespace

void ReadSharedFields(JsonFields* fields, v1::GenerateRequest* call, GenerationRequest* request) {
  std::optional<ApiError>* error = fields->error();
  ReadControl(fields, call, request);
  ReadCount(fields, call, request);
  ReadSampling(fields, call->mutable_sampling());
  ReadStopping(fields, call->mutable_stopping(), request);
  ReadStream(fields, error, request);
  ReadPromptLogprobs(fields, call->mutable_output(), request);
  ReadConstraint(fields, call, &request->names, &request->ignored);
  RefuseFields(RefusedOn::kBoth, fields);
  fields->Accept({"user", "metadata", "store", "service_tier", "safety_identifier",
                  "prompt_cache_key", "prompt_cache_retention", "cache_prompt", "id_slot"});
}

}  // namespace fastgen::gateway
