#include "clients/fgbench/completion_events.h"

#include <algorithm>
#include <boost/json.hpp>

namespace fastgen {
namespace {

namespace json = boost::json;

json::value Parse(std::string_view text) {
  json::error_code error;
  json::parse_options options;
  options.max_depth = 32;
  json::value value = json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  return error ? json::value() : value;
}

const json::value* Find(const json::value& value, std::string_view key) {
  const json::object* object = value.if_object();
  return object == nullptr ? nullptr
                           : object->if_contains(json::string_view(key.data(), key.size()));
}

const json::string* FindString(const json::value& value, std::string_view key) {
  const json::value* found = Find(value, key);
  return found == nullptr ? nullptr : found->if_string();
}

std::optional<int32_t> FindCount(const json::value& value, std::string_view key) {
  const json::value* found = Find(value, key);
  if (found == nullptr || !found->is_int64()) return std::nullopt;
  return static_cast<int32_t>(std::clamp<int64_t>(found->get_int64(), 0, INT32_MAX));
}

// OpenAI's {"error":{"message"}}, also as {"error":"..."} or {"message"}.
std::string MessageIn(const json::value& value) {
  const json::value* error = Find(value, "error");
  const json::value& holder = error != nullptr ? *error : value;
  const json::string* message = holder.if_string();
  if (message == nullptr) message = FindString(holder, "message");
  return message == nullptr ? "" : std::string(message->data(), message->size());
}

}  // namespace

CompletionEvent ReadCompletionEvent(std::string_view data) {
  CompletionEvent event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  const json::value value = Parse(data);
  if (!value.is_object()) {
    event.error = "an event of the stream is not a JSON object";
    return event;
  }
  const json::value* error = Find(value, "error");
  if (error != nullptr && !error->is_null()) {
    event.error = MessageIn(value);
    if (event.error.empty()) event.error = "an error without a message";
    return event;
  }
  const json::value* choices = Find(value, "choices");
  if (choices != nullptr && choices->is_array()) {
    for (const json::value& choice : choices->get_array()) {
      const json::string* text = FindString(choice, "text");
      event.has_text = event.has_text || (text != nullptr && !text->empty());
    }
  }
  if (const json::value* usage = Find(value, "usage")) {
    event.prompt_tokens = FindCount(*usage, "prompt_tokens");
    event.output_tokens = FindCount(*usage, "completion_tokens");
  }
  return event;
}

std::string ErrorMessageOf(std::string_view body) {
  const std::string message = MessageIn(Parse(body));
  return message.empty() ? std::string(body) : message;
}

std::string FirstModelOf(std::string_view body) {
  const json::value value = Parse(body);
  const json::value* data = Find(value, "data");
  if (data == nullptr || !data->is_array() || data->get_array().empty()) return "";
  const json::string* id = FindString(data->get_array()[0], "id");
  return id == nullptr ? "" : std::string(id->data(), id->size());
}

std::string CompletionRequest(const std::string& model, const std::string& prompt,
                              int32_t max_tokens, double temperature) {
  const json::object body = {{"model", model},
                             {"prompt", prompt},
                             {"max_tokens", max_tokens},
                             {"temperature", temperature},
                             {"ignore_eos", true},
                             {"stream", true},
                             {"stream_options", {{"include_usage", true}}}};
  return json::serialize(body);
}

}  // namespace fastgen
