#include "server/trace_parent.h"

#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder

constexpr char kGood[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST_CASE("trace parents are well-formed or not", "[server]") {
  CHECK(IsTraceParent(kGood));
  CHECK(IsTraceParent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes"));
  for (const char* bad :
       {"", "00", "00-1-2-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01"}) {
    INFO(bad);
    CHECK_FALSE(IsTraceParent(bad));
  }
}

std::string ReceiptsTrace(const std::vector<std::string>& sent) {
  TestDaemon daemon;
  grpc::ClientContext context;
  for (const std::string& value : sent) context.AddMetadata("traceparent", value);
  const auto reader = daemon.stub->Generate(&context, TextRequest("a", 2));
  v1::GenerateEvent event;
  std::string trace = "no receipt";
  while (reader->Read(&event)) {
    if (event.has_finished()) trace = event.finished().receipt().trace_parent();
  }
  CHECK(reader->Finish().ok());
  return trace;
}

TEST_CASE("a receipt carries the trace of its call, when there is one", "[server]") {
  CHECK(ReceiptsTrace({kGood}) == kGood);
  CHECK(ReceiptsTrace({}) == "");
  CHECK(ReceiptsTrace({"00-1-2-01"}) == "");
  CHECK(ReceiptsTrace({kGood, kGood}) == "");
}

}  // namespace
}  // namespace fastgen
