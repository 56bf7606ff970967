// Where an answer ends: stop strings across tokens, stop ids, and that text, ids, logprobs and
// usage end together, however late the engine thread hears of it.
#include "engine/engine.h"
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

TEST_CASE("a stop string across tokens cuts text, ids, logprobs and usage together", "[engine]") {
  EngineUnderTestOptions options;
  options.pieces = {"one ST", "OP two"};
  const int32_t first = FakeTokenizer::kFirstPiece;
  const bool includes = GENERATE(false, true);
  EngineUnderTest fake = MakeEngineUnderTest(options, Says({'<', first, first + 1, 'x', 'y', 'z'}));
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  request.stopping.stop = {"never", "STOP"};
  request.stopping.include_stop = includes;
  request.output.token_ids = true;
  request.output.logprobs = 0;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == (includes ? "<one STOP" : "<one "));
  CHECK(record.ids() == std::vector<int32_t>{'<', first, first + 1});
  CHECK(record.logprobs().size() == 3);
  CHECK(record.finished->reason == FinishReason::kStop);
  CHECK(record.finished->matched_stop == "STOP");
  CHECK_FALSE(record.finished->matched_token_id.has_value());
  CHECK(record.finished->usage.output_tokens == 3);
  CHECK(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake.AllBlocksFree());
}

// Holds the completion thread in OnDelta until the executor has run many more steps.
class SlowSink final : public RecordingSink {
 public:
  explicit SlowSink(testing::FakeExecutor* executor) : executor_(executor) {}
  void OnDelta(TokenDelta delta) override {
    RecordingSink::OnDelta(std::move(delta));
    executor_->WaitForStep(20);
  }

 private:
  testing::FakeExecutor* const executor_;
};

TEST_CASE("the answer does not depend on how late a stop string is found", "[engine]") {
  // The completion thread sees token 4 of 40 only after step 20; the last one ends with <eos>.
  EngineUnderTest fake =
      MakeEngineUnderTest({}, Says(Bytes("abcdefghijklmnopqrstuvwxyzabcdefghijklmn")));
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  request.stopping.stop = {"de"};
  request.output.token_ids = true;
  auto sink = std::make_shared<SlowSink>(fake.executor);
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == "abc");
  CHECK(record.ids() == Bytes("abcde"));
  CHECK(record.finished->reason == FinishReason::kStop);
  CHECK(record.finished->matched_stop == "de");
  CHECK(record.finished->usage.output_tokens == 5);
  CHECK(record.num_calls_out_of_order == 0);
}

TEST_CASE("what lies beyond a stop string that was found late is in no prefix", "[engine]") {
  EngineUnderTestOptions options;
  options.num_host_blocks = GENERATE(0, 32);
  EngineUnderTest fake = MakeEngineUnderTest(
      options, Says(Bytes("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwx")));
  const bool stops = GENERATE(true, false);
  GenerateRequest request = MakeRequest("a", Bytes("0123456789ab"));
  if (stops) request.stopping.stop = {"de"};
  auto sink = std::make_shared<SlowSink>(fake.executor);
  REQUIRE(fake->Submit(request, sink).ok());
  CHECK(sink->WaitForEnd().ids().size() == (stops ? 5 : 51));
  // The same text, all of it: 62 tokens in blocks of 16.
  auto again = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(MakeRequest("b",
                                   Bytes("0123456789ababcdefghijklmnopqrstuvwxyz"
                                         "abcdefghijklmnopqrstuvwx"),
                                   1),
                       again)
              .ok());
  const int32_t cached_tokens = again->WaitForEnd().finished->usage.cached_tokens;
  // Nothing of the output, if the sequence had ended before the stop string was found.
  if (stops) CHECK(cached_tokens <= 16);
  if (!stops) CHECK(cached_tokens == 48);
}

TEST_CASE("a stop string ends the sequence, and few steps are wasted on it", "[engine]") {
  // 240 tokens could follow. The engine thread is at most Completion::kMaxPendingSteps ahead.
  std::vector<int32_t> tokens = Bytes("STOP");
  tokens.resize(240, 'z');
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(tokens));
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  request.stopping.stop = {"STOP"};
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  CHECK(sink->WaitForEnd().finished->matched_stop == "STOP");
  CHECK(fake.executor->steps().size() < 80);
}

TEST_CASE("a stop string in the last token beats length and eos", "[engine]") {
  const bool by_length = GENERATE(false, true);
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abcd")));
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  if (by_length) request.stopping.max_tokens = 4;
  request.stopping.stop = {"cd"};
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == "ab");
  CHECK(record.finished->reason == FinishReason::kStop);
  CHECK(record.finished->matched_stop == "cd");
  CHECK(record.finished->usage.output_tokens == 4);
}

TEST_CASE("what was held back for a stop string comes out when it does not match", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("abSTO")));
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  request.stopping.stop = {"STOP"};
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == "abSTO");
  CHECK(record.ids().size() == 6);
  CHECK(record.finished->matched_token_id == FakeTokenizer::kEos);
}

TEST_CASE("a stop id counts and is listed, and its text is left out unless asked for", "[engine]") {
  const bool includes = GENERATE(false, true);
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("ab.cd")));
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  request.stopping.stop_token_ids = {'.'};
  request.stopping.include_stop = includes;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == (includes ? "ab." : "ab"));
  CHECK(record.ids() == Bytes("ab."));
  CHECK(record.finished->matched_token_id == '.');
  CHECK(record.finished->usage.output_tokens == 3);
}

TEST_CASE("ignored eos goes on and its text is skipped", "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says({'a', FakeTokenizer::kEos, 'b'}));
  const bool skips = GENERATE(true, false);
  GenerateRequest request = MakeRequest("a", Bytes("p"), 3);
  request.stopping.ignore_eos = true;
  request.stopping.skip_special_tokens = skips;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == (skips ? "ab" : "a<eos>b"));
  CHECK(record.ids() == std::vector<int32_t>{'a', FakeTokenizer::kEos, 'b'});
  CHECK(record.finished->reason == FinishReason::kLength);
}

TEST_CASE("a character is given out whole; tokens without text wait for the next delta",
          "[engine]") {
  EngineUnderTest fake = MakeEngineUnderTest({}, Says(Bytes("a\xE2\x82\xAC!\xE2\x82")));
  const bool wants_ids = GENERATE(false, true);
  GenerateRequest request = MakeRequest("a", Bytes("p"));
  request.output.token_ids = wants_ids;
  auto sink = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request, sink).ok());
  const RecordingSink::Record record = sink->WaitForEnd();
  CHECK(record.text() == "a\xE2\x82\xAC!\xEF\xBF\xBD");
  REQUIRE(record.deltas.size() == (wants_ids ? 9 : 4));
  if (wants_ids) {
    CHECK(record.deltas[1].text.empty());
    CHECK(record.deltas[1].token_ids.size() == 1);
  } else {
    CHECK(record.deltas[1].text == "\xE2\x82\xAC");
    CHECK(record.deltas[1].token_ids.size() == 3);
  }
  CHECK(record.ids().size() == 8);
}

}  // namespace
}  // namespace fastgen
