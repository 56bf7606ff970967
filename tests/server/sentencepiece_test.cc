// SentencePiece brings its own protobuf in Debian's shared library and breaks a process that also
// serves gRPC; the static one that ./dev setup builds must not.
#include <fstream>
#include <sstream>

#include "engine/text/tokenizer.h"
#include "tests/server/test_daemon.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder

TEST_CASE("sentencepiece encodes inside the process that serves gRPC", "[server]") {
  std::ifstream file(SourceTestdata() / "tokenizer" / "sentencepiece.model", std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  REQUIRE(bytes.str().size() > 1000);
  TokenizerSource source;
  source.model = TokenizerSource::Model::kSentencePiece;
  source.sentencepiece_model = bytes.str();
  auto tokenizer = MakeTokenizer(std::move(source));
  INFO(tokenizer.status().ToString());
  REQUIRE(tokenizer.ok());

  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  daemon.engine->set_tokenizer(*std::move(tokenizer));
  auto stub = v1::Inference::NewStub(
      grpc::CreateChannel(daemon.daemon->grpc_addresses()[0], grpc::InsecureChannelCredentials()));
  for (const std::string text : {"Hello, world", "Grüße aus 東京 🚀", "  two  spaces\n"}) {
    v1::TokenizeRequest request;
    request.set_text(text);
    v1::TokenizeResponse tokens;
    grpc::ClientContext context;
    REQUIRE(stub->Tokenize(&context, request, &tokens).ok());
    CHECK(tokens.ids_size() > 1);
    v1::DetokenizeRequest back;
    *back.mutable_ids() = tokens.ids();
    back.set_skip_special_tokens(true);
    v1::DetokenizeResponse response;
    grpc::ClientContext back_context;
    REQUIRE(stub->Detokenize(&back_context, back, &response).ok());
    CHECK(response.text() == text);
  }
}

}  // namespace
}  // namespace fastgen
