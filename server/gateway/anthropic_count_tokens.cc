#include "server/gateway/anthropic_count_tokens.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/gateway/anthropic_messages.h"
#include "server/gateway/errors.h"
#include "server/gateway/unary_exchange.h"

namespace fastgen::gateway {
namespace {

void AnswerError(const ApiError& error, const std::string& request_id, ResponseWriter* writer) {
  writer->Respond(ErrorResponse(error, ErrorShape::kAnthropic, request_id));
}

}  // namespace

std::shared_ptr<Exchange> PostCountTokens(Router& router, const HttpRequest& request,
                                          std::string_view tail,
                                          std::shared_ptr<ResponseWriter> writer) {
  using Render = UnaryExchange<v1::RenderChatRequest, v1::RenderChatResponse>;
  v1::RenderChatRequest call;
  std::vector<std::string> ignored;
  std::optional<ApiError> error = ParseCountTokensRequest(request.body, &call, &ignored);
  if (!error.has_value()) error = router.CheckIgnored(ignored);
  if (error.has_value()) {
    AnswerError(*error, request.request_id, writer.get());
    return nullptr;
  }
  return Render::Start(
      writer, router.daemons(), request.metadata, std::move(call),
      [](const DaemonStubs& daemon, grpc::ClientContext* context, const auto* in, auto* out,
         Render::Done done) {
        daemon.inference->async()->RenderChat(context, in, out, std::move(done));
      },
      [writer, id = request.request_id, ignored = std::move(ignored)](
          const grpc::Status& status, const v1::RenderChatResponse& response) {
        if (!status.ok()) {
          AnswerError(ErrorFromGrpc(status, {.prompt = "messages", .messages_match = false}), id,
                      writer.get());
          return;
        }
        HttpResponse answer;
        answer.headers = IgnoredHeaders(ignored);
        answer.body = absl::StrCat("{\"input_tokens\":", response.ids_size(), "}");
        writer->Respond(std::move(answer));
      });
}

}  // namespace fastgen::gateway
