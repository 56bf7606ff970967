#include "server/gateway/router.h"

#include <charconv>
#include <cmath>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/strings.h"
#include "server/gateway/anthropic_answer.h"
#include "server/gateway/anthropic_count_tokens.h"
#include "server/gateway/anthropic_messages.h"
#include "server/gateway/cors.h"
#include "server/gateway/errors.h"
#include "server/gateway/generation.h"
#include "server/gateway/openai_chat.h"
#include "server/gateway/openai_completions.h"
#include "server/gateway/openai_responses.h"
#include "server/gateway/plain_routes.h"
#include "server/gateway/request_id.h"
#include "server/gateway/responses_answer.h"
#include "server/gateway/text_routes.h"
#include "server/gateway/unary_exchange.h"

namespace fastgen::gateway {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;
using Handler = std::shared_ptr<Exchange> (*)(Router&, const HttpRequest&, std::string_view tail,
                                              Writer);

constexpr size_t kMaxKeptBytes = 32 << 10;

struct RouteRow {
  std::string_view method;
  std::string_view path;  // one that ends in '/' takes a tail
  Handler handler;        // nullptr: see Router::Route
  std::string_view note;  // of what is not built: the message
};

std::shared_ptr<Exchange> ResumeStream(Router& router, const HttpRequest& request,
                                       std::string_view tail, Writer writer) {
  return router.Resume(request, tail, std::move(writer));
}

constexpr GenerationRow kGenerationRows[] = {
    {"/chat/completions", GenerationRoute::kChat, "chatcmpl-", &ParseChatRequest},
    {"/completions", GenerationRoute::kCompletions, "cmpl-", &ParseCompletionsRequest},
    {"/responses", GenerationRoute::kResponses, "resp_", &ParseResponsesRequest},
    {"/messages", GenerationRoute::kMessages, "msg_", &ParseMessagesRequest},
};

constexpr RouteRow kRoutes[] = {
    {"POST", "/chat/completions", nullptr, ""},
    {"POST", "/chat/completions/input_tokens", &CountChatTokens, ""},
    {"POST", "/apply-template", &ApplyTemplate, ""},
    {"POST", "/completions", nullptr, ""},
    {"POST", "/responses", nullptr, ""},
    {"POST", "/messages", nullptr, ""},
    {"POST", "/messages/count_tokens", &PostCountTokens, ""},
    {"GET", "/models", &ListModels, ""},
    {"GET", "/models/", &GetModel, ""},
    {"GET", "/health", &GetHealth, ""},
    {"GET", "/version", &GetVersion, ""},
    {"GET", "/metrics", &GetMetrics, ""},
    {"POST", "/tokenize", &PostTokenize, ""},
    {"POST", "/detokenize", &PostDetokenize, ""},
    {"GET", "/tokenizer_info", &GetTokenizerInfo, ""},
    {"POST", "/cancel", &PostCancel, ""},
    {"GET", "/streams/", &ResumeStream, ""},
    {"GET", "/openapi.json", &GetOpenApi, ""},
    {"POST", "/embeddings", nullptr, "embeddings are not part of this version"},
    {"POST", "/start_profile", nullptr, "profiling is not part of this version"},
    {"POST", "/stop_profile", nullptr, "profiling is not part of this version"},
    {"POST", "/sleep", nullptr, "putting a model to sleep is not part of this version"},
    {"POST", "/wake_up", nullptr, "putting a model to sleep is not part of this version"},
    {"POST", "/update_weights", nullptr,
     "new weights for a running model are not part of this version; start another daemon"},
};

// What needs no key, where there are keys.
bool IsPublic(const RouteRow& row) {
  return row.path == "/health" || row.path == "/version" || row.path == "/openapi.json";
}

// An id's key among the resumable streams: whoever shows another API key means another request. The
// key itself is not kept.
std::string StreamKey(const HttpRequest& request, const std::string& request_id) {
  std::string credentials;
  for (const auto& [name, value] : request.metadata) {
    if (name == "authorization" || name == "x-api-key") {
      absl::StrAppend(&credentials, name, ":", value, "\n");
    }
  }
  return absl::StrCat(request_id, " ", std::hash<std::string>()(credentials));
}

// In the shape of the path's dialect, with the client's own id where it showed one.
HttpResponse ErrorFor(const HttpRequest& request, const ApiError& error) {
  const bool has_id = IsRequestId(request.request_id);
  return ErrorResponse(error, ErrorShapeOf(request.path), has_id ? request.request_id : "");
}

std::shared_ptr<Exchange> Answer(const Writer& writer, const HttpRequest& request,
                                 const ApiError& error) {
  writer->Respond(ErrorFor(request, error));
  return nullptr;
}

// The path without "/v1" and without a last '/'.
std::string_view Normalized(std::string_view path) {
  if (path.substr(0, 4) == "/v1/") path.remove_prefix(3);
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return path;
}

bool Matches(const RouteRow& row, std::string_view path, std::string_view* tail) {
  if (row.path.back() != '/') return row.path == path;
  if (path.size() <= row.path.size() || path.substr(0, row.path.size()) != row.path) return false;
  *tail = path.substr(row.path.size());
  return true;
}

bool IsJson(std::string_view content_type) {
  const std::string_view media = content_type.substr(0, content_type.find(';'));
  std::string plain;
  for (char c : media) {
    if (c != ' ' && c != '\t') plain += c;
  }
  return plain.empty() || absl::EqualsIgnoreCase(plain, "application/json") ||
         (absl::StartsWithIgnoreCase(plain, "application/") &&
          absl::EndsWithIgnoreCase(plain, "+json"));
}

std::shared_ptr<Exchange> MethodNotAllowed(const HttpRequest& request,
                                           const std::vector<std::string>& allowed,
                                           const Writer& writer) {
  HttpResponse response;
  if (request.method == "OPTIONS") {
    response.status = 204;
  } else {
    response = ErrorFor(
        request,
        {.status = 405,
         .message = absl::StrCat(request.method.substr(0, 32),
                                 " is not allowed here; allowed: ", absl::StrJoin(allowed, ", ")),
         .code = "method_not_allowed"});
  }
  response.headers.emplace_back("Allow", absl::StrCat(absl::StrJoin(allowed, ", "), ", OPTIONS"));
  writer->Respond(std::move(response));
  return nullptr;
}

std::optional<ApiError> CheckBody(const HttpRequest& request) {
  // Any page may make a browser send a body without a type to any address, and start work there.
  const bool page_without_type = request.content_type.empty() && !request.origin.empty();
  if (page_without_type || !IsJson(request.content_type)) {
    return ApiError{.status = 415,
                    .message = "the Content-Type must be application/json",
                    .code = "unsupported_media_type"};
  }
  if (!request.content_encoding.empty() &&
      !absl::EqualsIgnoreCase(request.content_encoding, "identity")) {
    return ApiError{.status = 415,
                    .message = "compressed request bodies are not supported",
                    .code = "unsupported_media_type"};
  }
  return std::nullopt;
}

// A page whose name leads to this address after all (DNS rebinding) passes for one of this server's
// own, so that browsers do not ask first; its Origin gives it away. Where keys are asked for, it
// has none.
std::optional<ApiError> CheckPage(const GatewayOptions& options, const HttpRequest& request) {
  if (options.check_key || MayCall(options.cors_origins, request.origin)) return std::nullopt;
  const std::string origin = request.origin.substr(0, 256);
  return ApiError{.status = 403,
                  .message = absl::StrCat("pages of ", origin,
                                          " may not call; start the server with --cors-origin ",
                                          origin, " to let them"),
                  .code = "origin_not_allowed"};
}

// The number of a header that says seconds.
std::optional<double> ReadSeconds(std::string_view text, double most) {
  double seconds = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, seconds);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  if (!(seconds >= 0 && seconds <= most)) return std::nullopt;
  return seconds;
}

std::optional<ApiError> ReadTimeout(const HttpRequest& request, GenerationRequest* generation) {
  if (request.timeout.empty()) return std::nullopt;
  const std::optional<double> seconds = ReadSeconds(request.timeout, 86400);
  if (!seconds.has_value() || *seconds == 0) {
    return ApiError{
        .message = absl::StrCat("X-Fastgen-Timeout must be seconds above 0 and up to 86400, not ",
                                request.timeout.substr(0, 64)),
        .param = "X-Fastgen-Timeout",
        .code = "invalid_value"};
  }
  generation->deadline = absl::Now() + absl::Seconds(*seconds);
  return std::nullopt;
}

std::optional<ApiError> ReadResumeWindow(const HttpRequest& request,
                                         GenerationRequest* generation) {
  if (!request.last_event_id.empty()) {
    return ApiError{.message = "Last-Event-ID belongs to GET /v1/streams/{request id}",
                    .param = "Last-Event-ID",
                    .code = "invalid_value"};
  }
  if (request.resume_window.empty()) return std::nullopt;
  const std::optional<double> window = ReadSeconds(request.resume_window, 3600);
  if (!window.has_value()) {
    return ApiError{
        .message = absl::StrCat("X-Fastgen-Resume-Window must be seconds between 0 and 3600, not ",
                                request.resume_window.substr(0, 64)),
        .param = "X-Fastgen-Resume-Window",
        .code = "invalid_value"};
  }
  const double seconds = *window;
  if (seconds == 0) return std::nullopt;
  // Each further prompt is a request of its own, whose place in the stream no id could tell.
  if (generation->calls.size() > 1) {
    return ApiError{.message = "X-Fastgen-Resume-Window needs a request of one prompt",
                    .param = "X-Fastgen-Resume-Window",
                    .code = "unsupported_parameter"};
  }
  // What a stream is taken up with is kept, also what its answer repeats of the request.
  if (generation->options.echo_json.size() > kMaxKeptBytes) {
    return ApiError{.message = absl::StrCat("X-Fastgen-Resume-Window needs a request whose "
                                            "instructions and tools are within ",
                                            kMaxKeptBytes, " bytes"),
                    .param = "X-Fastgen-Resume-Window",
                    .code = "unsupported_parameter"};
  }
  generation->has_window = true;
  for (v1::GenerateRequest& call : generation->calls) {
    call.mutable_resume_window()->set_seconds(static_cast<int64_t>(seconds));
    call.mutable_resume_window()->set_nanos(
        static_cast<int32_t>((seconds - std::floor(seconds)) * 1e9));
  }
  return std::nullopt;
}

// The id of the body, of the header, or a new one; each further prompt's call gets "-<index>" after
// it.
std::optional<ApiError> SetRequestIds(const HttpRequest& request, GenerationRequest* generation) {
  if (!request.request_id.empty() && !IsRequestId(request.request_id)) {
    return ApiError{.message = "X-Request-Id must be 1 to 128 printable ASCII characters",
                    .param = "X-Request-Id",
                    .code = "invalid_value"};
  }
  if (generation->request_id.empty()) generation->request_id = request.request_id;
  if (generation->request_id.empty()) generation->request_id = NewRequestId();
  for (size_t i = 0; i < generation->calls.size(); ++i) {
    generation->calls[i].set_request_id(i == 0 ? generation->request_id
                                               : absl::StrCat(generation->request_id, "-", i));
  }
  return std::nullopt;
}

std::unique_ptr<AnswerFormat> MakeFormat(GenerationRoute route, const AnswerOptions& options) {
  switch (route) {
    case GenerationRoute::kChat:
      return std::make_unique<ChatFormat>(options);
    case GenerationRoute::kCompletions:
      return std::make_unique<CompletionsFormat>(options);
    case GenerationRoute::kResponses:
      return std::make_unique<ResponsesFormat>(options);
    case GenerationRoute::kMessages:
      return std::make_unique<MessagesFormat>(options);
  }
  return nullptr;
}

}  // namespace

Headers IgnoredHeaders(const std::vector<std::string>& ignored) {
  if (ignored.empty()) return {};
  return {{"X-Fastgen-Ignored", absl::StrJoin(ignored, ", ")}};
}

std::vector<std::pair<std::string_view, std::string_view>> Routes() {
  std::vector<std::pair<std::string_view, std::string_view>> routes;
  for (const RouteRow& row : kRoutes) routes.emplace_back(row.method, row.path);
  return routes;
}

Router::Router(const GatewayOptions& options, DaemonPool& daemons)
    : options_(options), daemons_(daemons), start_time_s_(absl::ToUnixSeconds(absl::Now())) {}

std::string Router::model_name() const {
  if (daemons_.is_fleet()) {
    if (std::string name = daemons_.model_name(); !name.empty()) return name;
  }
  MutexLock lock(&mutex_);
  return model_name_;
}

std::string Router::system_fingerprint() const {
  MutexLock lock(&mutex_);
  return system_fingerprint_;
}

void Router::set_model(const v1::ModelInfo& info) {
  MutexLock lock(&mutex_);
  model_name_ = info.name();
  // Of a fleet each daemon has its own.
  if (!daemons_.is_fleet()) system_fingerprint_ = FingerprintOf(info);
}

std::optional<ApiError> Router::CheckIgnored(const std::vector<std::string>& ignored) const {
  if (!options_.strict_fields || ignored.empty()) return std::nullopt;
  return ApiError{
      .message = absl::StrCat(ignored[0], " is not a field that this version knows (--strict)"),
      .param = ignored[0],
      .code = "unknown_parameter"};
}

std::shared_ptr<Exchange> Router::Route(HttpRequest request, Writer writer) {
  const std::string_view path = Normalized(request.path);
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  std::vector<std::string> allowed;
  if (method == "OPTIONS" && path == "*")
    return MethodNotAllowed(request, {"GET", "HEAD", "POST"}, writer);
  for (const RouteRow& row : kRoutes) {
    std::string_view tail;
    if (!Matches(row, path, &tail)) continue;
    if (row.method != method) {
      allowed.emplace_back(row.method);
      if (row.method == "GET") allowed.emplace_back("HEAD");
      continue;
    }
    if (!row.note.empty()) {
      return Answer(writer, request,
                    {.status = 501, .message = std::string(row.note), .code = "not_implemented"});
    }
    if (options_.check_key && !IsPublic(row)) {
      const grpc::Status known = options_.check_key(request.metadata);
      if (!known.ok()) return Answer(writer, request, ErrorFromGrpc(known));
    }
    if (method == "POST") {
      if (const auto error = CheckPage(options_, request)) return Answer(writer, request, *error);
      if (const auto error = CheckBody(request)) return Answer(writer, request, *error);
    }
    if (row.handler != nullptr) return row.handler(*this, request, tail, std::move(writer));
    for (const GenerationRow& generated : kGenerationRows) {
      if (generated.path == path) return Generate(generated, request, std::move(writer));
    }
  }
  if (!allowed.empty()) return MethodNotAllowed(request, allowed, writer);
  return Answer(writer, request,
                {.status = 404,
                 .message = absl::StrCat("there is no route ", request.method.substr(0, 32), " ",
                                         request.path.substr(0, 256)),
                 .code = "not_found"});
}

std::shared_ptr<Exchange> Router::Generate(const GenerationRow& row, const HttpRequest& request,
                                           Writer writer) {
  auto generation = std::make_shared<GenerationRequest>();
  std::optional<ApiError> error = row.parse(request.body, generation.get());
  if (!error.has_value()) error = CheckIgnored(generation->ignored);
  if (!error.has_value()) error = ReadResumeWindow(request, generation.get());
  if (!error.has_value()) error = ReadTimeout(request, generation.get());
  if (!error.has_value()) error = SetRequestIds(request, generation.get());
  if (error.has_value()) return Answer(writer, request, *error);
  generation->options.id = absl::StrCat(ToAbsl(row.id_prefix), generation->request_id);
  generation->options.created = absl::ToUnixSeconds(absl::Now());

  const auto begin =
      [this, route = row.route, shape = ErrorShapeOf(request.path), generation, writer,
       metadata = request.metadata,
       stream_key = StreamKey(request, generation->request_id)]() -> std::shared_ptr<Exchange> {
    AnswerOptions& options = generation->options;
    if (options_.strict_model && !options.model.empty() && options.model != model_name()) {
      const ApiError unknown = {
          .status = 404,
          .message = absl::StrCat("the model '", options.model,
                                  "' does not exist; this server has '", model_name(), "'"),
          .param = "model",
          .code = "model_not_found"};
      writer->Respond(ErrorResponse(unknown, shape, generation->request_id));
      return nullptr;
    }
    if (options.model.empty()) options.model = model_name();
    options.system_fingerprint = system_fingerprint();
    Headers headers = IgnoredHeaders(generation->ignored);
    headers.emplace_back("X-Request-Id", generation->request_id);
    // Anthropic's clients look for it under this name.
    if (shape == ErrorShape::kAnthropic) headers.emplace_back("request-id", generation->request_id);
    if (generation->has_window) {
      ResumableStream stream = {route, generation->num_answers, options, generation->names};
      generation->on_sent = [this, stream_key, stream](size_t daemon) mutable {
        stream.daemon = daemon;
        resumable_.Add(stream_key, stream);
      };
      generation->on_accepted = [this, stream_key, stream](size_t daemon) mutable {
        stream.daemon = daemon;
        resumable_.Set(stream_key, stream);
      };
    }
    std::unique_ptr<AnswerFormat> format = MakeFormat(route, options);
    auto exchange = std::make_shared<Generation>(writer, daemons_, std::move(*generation),
                                                 std::move(format), std::move(headers));
    exchange->Start(metadata);
    return exchange;
  };
  if (!model_name().empty()) return begin();
  return FetchModelInfo(*this, request, writer, [writer, begin](const v1::ModelInfo&) {
    if (std::shared_ptr<Exchange> exchange = begin()) writer->HandOver(std::move(exchange));
  });
}

std::shared_ptr<Exchange> Router::Resume(const HttpRequest& request, std::string_view request_id,
                                         Writer writer) {
  // It takes the stream from its reader: not what a HEAD may do.
  if (request.method != "GET") return MethodNotAllowed(request, {"GET"}, writer);
  const std::string id(request_id);
  std::optional<ResumableStream> stream = resumable_.Find(StreamKey(request, id));
  if (!stream.has_value()) {
    return Answer(writer, request,
                  {.status = 404,
                   .message = absl::StrCat("there is no request '", id.substr(0, 128),
                                           "' whose resume window is open"),
                   .param = "request_id",
                   .code = "stream_not_found"});
  }
  std::unique_ptr<AnswerFormat> format = MakeFormat(stream->route, stream->options);
  std::optional<StreamPosition> position = StreamPosition();
  if (!request.last_event_id.empty()) position = StreamPosition::Parse(request.last_event_id);
  const bool anywhere = stream->num_answers == 1 && format->resumes_anywhere();
  if (!position.has_value() || (!anywhere && !position->at_start()) ||
      (!stream->options.stream && !request.last_event_id.empty())) {
    return Answer(writer, request,
                  {.message = stream->options.stream
                                  ? "Last-Event-ID is not an id that this stream's events had"
                                  : "Last-Event-ID belongs to event streams; this request has none",
                   .param = "Last-Event-ID",
                   .code = "invalid_value"});
  }
  GenerationRequest resumed;
  resumed.request_id = id;
  resumed.num_answers = stream->num_answers;
  resumed.options = stream->options;
  resumed.names = stream->names;
  resumed.names.not_found = "stream_not_found";
  resumed.has_window = true;
  resumed.resume = position;
  resumed.daemon = stream->daemon;
  auto exchange = std::make_shared<Generation>(writer, daemons_, std::move(resumed),
                                               std::move(format), Headers{{"X-Request-Id", id}});
  exchange->Start(request.metadata);
  return exchange;
}

}  // namespace fastgen::gateway
