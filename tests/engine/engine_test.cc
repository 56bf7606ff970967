// The whole engine on a fake executor: admission, streams, refusals, limits of the queue.
#include "engine/engine.h"

#include <sys/resource.h>

#include <chrono>
#include <thread>

#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::Bytes;
using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::FakeTokenizer;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;
using testing::Says;

TEST_CASE("a stream is accepted, gives its tokens in order and ends once", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("hello")));
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("say")), sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.num_calls_out_of_order == 0);
  CHECK(record.accepted->request_id == "a");
  CHECK(record.accepted->prompt_tokens == 3);
  CHECK(record.accepted->prompt_token_ids == Bytes("say"));
  CHECK(record.text() == "hello");
  std::vector<int32_t> expected = Bytes("hello");
  expected.push_back(FakeTokenizer::kEos);
  CHECK(record.ids() == expected);
  CHECK(record.finished->reason == FinishReason::kStop);
  CHECK(record.finished->matched_token_id == FakeTokenizer::kEos);
  CHECK(record.finished->usage.prompt_tokens == 3);
  CHECK(record.finished->usage.output_tokens == 6);
  CHECK(record.finished->receipt.num_steps == 6);
  CHECK(record.finished->receipt.num_chunks == 1);
  REQUIRE(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake.AllBlocksFree());
  const EngineStats stats = fake->stats();
  // The row that was planned before <eos> was known.
  CHECK(stats.num_steps - stats.num_wasted_rows == 6);
  CHECK(stats.prompt_tokens == 3);
  CHECK(stats.output_tokens == 6);
  CHECK(stats.finished_requests == 1);
}

TEST_CASE("a request is accepted while a step still runs", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("hello")));
  fake.executor->CloseGate();
  auto first = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), first).ok());
  fake.executor->WaitForStep(1);
  auto second = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("b", Bytes("y")), second).ok());
  CHECK(second->WaitForAccepted().accepted->request_id == "b");
  CHECK(fake->stats().num_waiting == 1);
  fake.executor->OpenGate();
  CHECK(first->WaitForEnd().text() == "hello");
  CHECK(second->WaitForEnd().text() == "hello");
}

TEST_CASE("text prompts are tokenised as the request asks", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says({}));
  GenerateRequest request = MakeRequest("a", {});
  request.prompt = TextPrompt{"hi"};
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  CHECK(sink->WaitForEnd().accepted->prompt_token_ids ==
        std::vector<int32_t>{FakeTokenizer::kBos, 'h', 'i'});
  request.request_id = "b";
  request.add_special_tokens = false;
  sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  CHECK(sink->WaitForEnd().accepted->prompt_token_ids == Bytes("hi"));
}

TEST_CASE("output ends at max_tokens, or where the context ends", "[engine]") {
  EngineUnderTestOptions options;
  options.max_model_len = 32;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(std::vector<int32_t>(100, 'z')));
  auto limited = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("abc"), 5), limited).ok());
  CHECK(limited->WaitForEnd().text() == "zzzzz");
  CHECK(limited->WaitForEnd().finished->reason == FinishReason::kLength);
  auto unlimited = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("b", Bytes("abc")), unlimited).ok());
  CHECK(unlimited->WaitForEnd().ids().size() == 29);
  CHECK(unlimited->WaitForEnd().finished->reason == FinishReason::kLength);
}

TEST_CASE("a refused request gets no sink call", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  auto sink = std::make_shared<RecordingSink>();
  GenerateRequest request = MakeRequest("a", Bytes("abc"));
  request.sampling.top_p = 1.5;
  const absl::Status status = fake->Submit(request, sink);
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message() == "sampling.top_p: 1.5 is outside (0, 1]");
  CHECK(fake->Submit(MakeRequest("a", {}), sink).code() == absl::StatusCode::kInvalidArgument);
  CHECK(fake->Submit(MakeRequest("a", {'a', 9999}), sink).message() ==
        "prompt: token id 9999 at index 1 is outside the vocabulary [0, 258)");
  const std::vector<int32_t> too_long(257, 'a');
  const absl::Status long_status = fake->Submit(MakeRequest("a", too_long), sink);
  CHECK(long_status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(long_status.message()).rfind("prompt: ", 0) == 0);
  GenerateRequest chat = MakeRequest("a", {});
  chat.prompt = ChatPrompt();
  CHECK(fake->Submit(chat, sink).code() == absl::StatusCode::kFailedPrecondition);
  CHECK(fake->WaitIdle(absl::ZeroDuration()));
  CHECK_FALSE(sink->record().accepted.has_value());
  CHECK(sink.use_count() == 1);
}

TEST_CASE("a live request id is refused and may be used again afterwards", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ok")));
  fake.executor->CloseGate();
  auto first = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("same", Bytes("x")), first).ok());
  auto second = std::make_shared<RecordingSink>();
  CHECK(fake->Submit(MakeRequest("same", Bytes("x")), second).code() ==
        absl::StatusCode::kAlreadyExists);
  fake.executor->OpenGate();
  first->WaitForEnd();
  CHECK(fake->Submit(MakeRequest("same", Bytes("x")), second).ok());
  CHECK(second->WaitForEnd().text() == "ok");
}

// Submits again, under the same id, from its last call.
class ChainingSink final : public RecordingSink {
 public:
  ChainingSink(Engine* engine, std::shared_ptr<RecordingSink> next)
      : engine_(engine), next_(std::move(next)) {}
  void OnFinished(FinishInfo info) override {
    status_ = engine_->Submit(MakeRequest("chain", Bytes("x"), 2), next_);
    RecordingSink::OnFinished(std::move(info));
  }
  absl::Status status_;

 private:
  Engine* const engine_;
  const std::shared_ptr<RecordingSink> next_;
};

TEST_CASE("a sink may submit from its last call: no lock is held", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcdef")));
  auto next = std::make_shared<RecordingSink>();
  auto sink = std::make_shared<ChainingSink>(fake.engine.get(), next);
  REQUIRE(fake->Submit(MakeRequest("chain", Bytes("x"), 3), sink).ok());
  CHECK(sink->WaitForEnd().text() == "abc");
  CHECK(sink->status_.ok());
  CHECK(next->WaitForEnd().text() == "ab");
}

TEST_CASE("a full queue refuses at once and opens again", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 1;
  options.max_queued_requests = 2;
  EngineUnderTest fake = MakeEngineUnderTest(options, Says(Bytes("ok")));
  fake.executor->CloseGate();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const auto submit = [&](const std::string& id) {
    sinks.push_back(std::make_shared<RecordingSink>());
    return fake->Submit(MakeRequest(id, Bytes("x")), sinks.back());
  };
  REQUIRE(submit("running").ok());
  fake.executor->WaitForStep(1);
  REQUIRE(submit("first").ok());
  REQUIRE(submit("second").ok());
  const absl::Status full = submit("third");
  CHECK(full.code() == absl::StatusCode::kResourceExhausted);
  CHECK(full.message() ==
        "the queue is full: 2 requests with 2 prompt tokens wait; "
        "the limits are 2 requests and 4194304 tokens");
  sinks.pop_back();
  // A cancelled one gives its place back, though it never ran.
  REQUIRE(fake->Cancel("second"));
  fake.executor->LetThrough(1);
  sinks.back()->WaitForEnd();
  CHECK(submit("fourth").ok());
  fake.executor->OpenGate();
  for (const auto& sink : sinks) sink->WaitForEnd();
  CHECK(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake->stats().num_waiting == 0);
}

TEST_CASE("the same seed gives the same tokens, another seed others", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  const auto ids_of = [&](const std::string& id, std::optional<uint64_t> seed) {
    GenerateRequest request = MakeRequest(id, Bytes("prompt"), 20);
    request.sampling.temperature = 1;
    request.sampling.seed = seed;
    request.stopping.ignore_eos = true;
    auto sink = std::make_shared<RecordingSink>();
    CHECK(fake->Submit(request, sink).ok());
    return sink->WaitForEnd();
  };
  const auto first = ids_of("a", 7);
  CHECK(first.finished->receipt.seed == 7);
  CHECK(ids_of("b", 7).ids() == first.ids());
  CHECK(ids_of("c", 8).ids() != first.ids());
  // Without a seed one is drawn, reported, and gives the same tokens when used again.
  const auto drawn = ids_of("d", std::nullopt);
  const auto other = ids_of("e", std::nullopt);
  CHECK(drawn.finished->receipt.seed != other.finished->receipt.seed);
  CHECK(ids_of("f", drawn.finished->receipt.seed).ids() == drawn.ids());
}

TEST_CASE("what a request's rules forbid is not sampled", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  GenerateRequest request = MakeRequest("a", Bytes("prompt"), 60);
  request.sampling.seed = 9;
  request.sampling.allowed_token_ids = {'a', 'b', FakeTokenizer::kEos};
  request.sampling.bad_words = {"bb", "aaa"};
  request.stopping.min_tokens = 60;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const std::string text = sink->WaitForEnd().text();
  CHECK(text.size() == 60);
  CHECK(text.find_first_not_of("ab") == std::string::npos);
  CHECK(text.find("bb") == std::string::npos);
  CHECK(text.find("aaa") == std::string::npos);
  CHECK(text.find("aa") != std::string::npos);
  request.sampling.bad_words = {"a", "b"};
  const absl::Status status = fake->Submit(request, sink);
  CHECK(std::string(status.message()).rfind("sampling.allowed_token_ids: none of the 3", 0) == 0);
}

TEST_CASE("tokenize and detokenize answer without the engine thread", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest();
  CHECK(*fake->Tokenize("ab", {}) == std::vector<int32_t>{FakeTokenizer::kBos, 'a', 'b'});
  CHECK(*fake->Detokenize({'a', FakeTokenizer::kEos, 'b'}, false) == "a<eos>b");
  CHECK(*fake->Detokenize({'a', FakeTokenizer::kEos, 'b'}, true) == "ab");
  CHECK(fake->Detokenize({'a', 258}, true).status().message() ==
        "ids: 258 at index 1 is outside the vocabulary [0, 258)");
  CHECK_FALSE(fake->Detokenize({-1}, true).ok());
  CHECK(*fake->TokenBytes({'a', FakeTokenizer::kEos}) == std::vector<std::string>{"a", "<eos>"});
  CHECK_FALSE(fake->TokenBytes({258}).ok());
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

TEST_CASE("an idle engine uses no CPU", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ok")));
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("a", Bytes("x")), sink).ok());
  sink->WaitForEnd();
  const double before = CpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(CpuSeconds() - before < 0.02);
}

}  // namespace
}  // namespace fastgen
