#include "server/gateway/text_routes.h"

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/answer_format.h"
#include "server/gateway/chat_fields.h"
#include "server/gateway/json_fields.h"
#include "server/gateway/json_text.h"
#include "server/gateway/plain_routes.h"
#include "server/gateway/unary_exchange.h"

namespace fastgen::gateway {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;

constexpr size_t kMaxTokenIds = 256 << 10;  // the daemon's

// What the answer to /tokenize holds beside the ids.
enum class TokenTexts { kNone, kStrings, kPieces };

void AnswerTokens(const Writer& writer, std::string tokens_json, int num_tokens,
                  int32_t max_model_len, const std::string& strings_json,
                  const std::vector<std::string>& ignored) {
  RespondJson(writer,
              absl::StrCat("{\"count\":", num_tokens, ",\"max_model_len\":", max_model_len,
                           ",\"tokens\":[", tokens_json, "],\"token_strs\":", strings_json, "}"),
              ignored);
}

std::string StringsJson(const v1::TokenizeResponse& response) {
  std::string json = "[";
  for (const std::string& bytes : response.token_bytes()) {
    if (json.size() > 1) json += ',';
    AppendJsonString(bytes, &json);
  }
  return json + "]";
}

// llama-server's {"id":..,"piece":..}; a piece that is not text by itself is a list of its bytes.
std::string PiecesJson(const v1::TokenizeResponse& response) {
  std::string json;
  for (int i = 0; i < response.ids_size(); ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ",", "{\"id\":", response.ids(i), ",\"piece\":");
    const std::string& bytes = response.token_bytes(i);
    if (ToValidUtf8(bytes) == bytes) {
      AppendJsonString(bytes, &json);
    } else {
      AppendJsonBytes(bytes, &json);
    }
    json += '}';
  }
  return json;
}

std::shared_ptr<Exchange> TokenizeText(Router& router, const HttpRequest& request,
                                       const Writer& writer, v1::TokenizeRequest call,
                                       TokenTexts texts, std::vector<std::string> ignored) {
  using Tokenize = UnaryExchange<v1::TokenizeRequest, v1::TokenizeResponse>;
  call.set_with_bytes(texts != TokenTexts::kNone);
  return Tokenize::Start(
      writer, router.daemons(), request.metadata, std::move(call),
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Tokenize::Done done) {
        daemon.inference->async()->Tokenize(context, in, out, std::move(done));
      },
      [writer, texts, ignored = std::move(ignored)](const grpc::Status& status,
                                                    const v1::TokenizeResponse& response) {
        if (!status.ok()) {
          RespondError(writer, ErrorFromGrpc(status));
          return;
        }
        std::string tokens;
        if (texts == TokenTexts::kPieces) {
          tokens = PiecesJson(response);
        } else {
          AppendIds(response.ids(), &tokens);
        }
        AnswerTokens(writer, std::move(tokens), response.ids_size(), response.max_model_len(),
                     texts == TokenTexts::kStrings ? StringsJson(response) : "null", ignored);
      });
}

// A field that vLLM's clients and llama-server's name differently: both are read, and may not
// differ.
template <typename Value>
std::optional<Value> OneOf(JsonFields* fields, std::string_view name, std::optional<Value> value,
                           const std::optional<Value>& other) {
  if (value.has_value() && other.has_value() && *value != *other) {
    fields->Fail(name, absl::StrCat(ToAbsl(name), " is given twice, under two names, and differs"));
  }
  return value.has_value() ? std::move(value) : other;
}

using OnRendered = std::function<void(const v1::RenderChatResponse&)>;

std::shared_ptr<Exchange> RenderChat(Router& router, const HttpRequest& request,
                                     const Writer& writer, v1::RenderChatRequest call,
                                     OnRendered next) {
  using Render = UnaryExchange<v1::RenderChatRequest, v1::RenderChatResponse>;
  return Render::Start(
      writer, router.daemons(), request.metadata, std::move(call),
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Render::Done done) {
        daemon.inference->async()->RenderChat(context, in, out, std::move(done));
      },
      [writer, next = std::move(next)](const grpc::Status& status,
                                       const v1::RenderChatResponse& response) {
        if (status.ok()) {
          next(response);
        } else {
          RespondError(writer, ErrorFromGrpc(status, {.prompt = "messages"}));
        }
      });
}

std::shared_ptr<Exchange> TokenizeChat(Router& router, const HttpRequest& request,
                                       const Writer& writer, v1::RenderChatRequest call,
                                       std::vector<std::string> ignored) {
  return RenderChat(
      router, request, writer, std::move(call),
      [&router, writer, request,
       ignored = std::move(ignored)](const v1::RenderChatResponse& response) {
        std::string tokens;
        AppendIds(response.ids(), &tokens);
        // vLLM's clients read max_model_len here too.
        writer->HandOver(FetchModelInfo(
            router, request, writer,
            [writer, tokens, num_tokens = response.ids_size(), ignored](const v1::ModelInfo& info) {
              AnswerTokens(writer, tokens, num_tokens, info.context_length(), "null", ignored);
            }));
      });
}

using WriteRendered = std::string (*)(const v1::RenderChatResponse&);

std::shared_ptr<Exchange> AnswerRendered(Router& router, const HttpRequest& request,
                                         const Writer& writer, WriteRendered write) {
  std::optional<ApiError> error;
  const auto object = ParseJsonObject(request.body, &error);
  if (!object.has_value()) return RespondError(writer, *error);
  JsonFields fields(*object, "", &error);
  v1::RenderChatRequest call;
  std::vector<std::string> ignored;
  ReadChat(&fields, call.mutable_chat(), &ignored);
  RefuseTextOnly(&fields);
  // The rest of a chat request may come along: it does not change the prompt.
  fields.Accept({"model", "max_tokens", "max_completion_tokens", "stream", "temperature"});
  if (!FinishReading(router, fields, &ignored)) return RespondError(writer, *error);
  return RenderChat(router, request, writer, std::move(call),
                    [writer, write, ignored](const v1::RenderChatResponse& response) {
                      RespondJson(writer, write(response), ignored);
                    });
}

void AppendTokenOrNull(const std::string& token, std::string* json) {
  if (token.empty()) {
    json->append("null");
  } else {
    AppendJsonString(token, json);
  }
}

}  // namespace

std::shared_ptr<Exchange> PostTokenize(Router& router, const HttpRequest& request,
                                       std::string_view tail, Writer writer) {
  std::optional<ApiError> error;
  const auto object = ParseJsonObject(request.body, &error);
  if (!object.has_value()) return RespondError(writer, *error);
  JsonFields fields(*object, "", &error);
  // vLLM's names first, then llama-server's.
  std::optional<std::string> text =
      OneOf(&fields, "prompt", fields.String("prompt"), fields.String("content"));
  const std::optional<bool> add_special = OneOf(
      &fields, "add_special_tokens", fields.Bool("add_special_tokens"), fields.Bool("add_special"));
  const std::optional<bool> parse_special = fields.Bool("parse_special");
  TokenTexts texts = TokenTexts::kNone;
  if (fields.Bool("return_token_strs").value_or(false)) texts = TokenTexts::kStrings;
  if (fields.Bool("with_pieces").value_or(false)) texts = TokenTexts::kPieces;
  fields.Accept({"model"});
  std::vector<std::string> ignored;
  if (!text.has_value() && fields.Find("messages") != nullptr) {
    v1::RenderChatRequest call;
    ReadChat(&fields, call.mutable_chat(), &ignored);
    RefuseTextOnly(&fields);
    if (texts != TokenTexts::kNone) {
      fields.Fail(texts == TokenTexts::kPieces ? "with_pieces" : "return_token_strs",
                  "the tokens' texts need a prompt, not messages");
    }
    if (!FinishReading(router, fields, &ignored)) return RespondError(writer, *error);
    return TokenizeChat(router, request, writer, std::move(call), std::move(ignored));
  }
  if (!text.has_value()) fields.Fail("prompt", "prompt is missing", "missing");
  if (!FinishReading(router, fields, &ignored)) return RespondError(writer, *error);
  v1::TokenizeRequest call;
  call.set_text(*std::move(text));
  if (add_special.has_value()) call.set_add_special_tokens(*add_special);
  if (parse_special.has_value()) call.set_parse_special(*parse_special);
  return TokenizeText(router, request, writer, std::move(call), texts, std::move(ignored));
}

std::shared_ptr<Exchange> ApplyTemplate(Router& router, const HttpRequest& request,
                                        std::string_view tail, Writer writer) {
  return AnswerRendered(router, request, writer, [](const v1::RenderChatResponse& response) {
    std::string json = "{\"prompt\":";
    AppendJsonString(response.text(), &json);
    return json + "}";
  });
}

std::shared_ptr<Exchange> CountChatTokens(Router& router, const HttpRequest& request,
                                          std::string_view tail, Writer writer) {
  return AnswerRendered(router, request, writer, [](const v1::RenderChatResponse& response) {
    return absl::StrCat(
        "{\"object\":\"response.input_tokens\",\"input_tokens\":", response.ids_size(), "}");
  });
}

std::shared_ptr<Exchange> GetTokenizerInfo(Router& router, const HttpRequest& request,
                                           std::string_view tail, Writer writer) {
  return FetchModelInfo(router, request, writer, [writer](const v1::ModelInfo& info) {
    std::string json = "{\"bos_token\":";
    AppendTokenOrNull(info.bos_token(), &json);
    json += ",\"eos_token\":";
    AppendTokenOrNull(info.eos_token(), &json);
    // Nothing is padded here: clients that want a token for it take the end of text.
    json += ",\"pad_token\":";
    AppendTokenOrNull(info.eos_token(), &json);
    absl::StrAppend(&json, ",\"vocab_size\":", info.vocab_size(),
                    ",\"model_max_length\":", info.context_length(), "}");
    RespondJson(writer, std::move(json));
  });
}

std::shared_ptr<Exchange> PostDetokenize(Router& router, const HttpRequest& request,
                                         std::string_view tail, Writer writer) {
  using Detokenize = UnaryExchange<v1::DetokenizeRequest, v1::DetokenizeResponse>;
  std::optional<ApiError> error;
  const auto object = ParseJsonObject(request.body, &error);
  if (!object.has_value()) return RespondError(writer, *error);
  JsonFields fields(*object, "", &error);
  const auto ids = fields.Ids("tokens", kMaxTokenIds);
  if (!ids.has_value()) fields.Fail("tokens", "tokens is missing", "missing");
  v1::DetokenizeRequest call;
  if (auto v = fields.Bool("skip_special_tokens")) call.set_skip_special_tokens(*v);
  fields.Accept({"model"});
  std::vector<std::string> ignored;
  if (!FinishReading(router, fields, &ignored)) return RespondError(writer, *error);
  call.mutable_ids()->Add(ids->begin(), ids->end());
  return Detokenize::Start(
      writer, router.daemons(), request.metadata, std::move(call),
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Detokenize::Done done) {
        daemon.inference->async()->Detokenize(context, in, out, std::move(done));
      },
      [writer, ignored = std::move(ignored)](const grpc::Status& status,
                                             const v1::DetokenizeResponse& response) {
        if (!status.ok()) {
          RespondError(writer, ErrorFromGrpc(status, {.prompt = "tokens"}));
          return;
        }
        std::string text;
        AppendJsonString(response.text(), &text);
        RespondJson(writer, absl::StrCat("{\"prompt\":", text, ",\"content\":", text, "}"),
                    ignored);
      });
}

}  // namespace fastgen::gateway
