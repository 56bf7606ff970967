#include "server/transport/channel_tls.h"

#include <fstream>
#include <string>

#undef CHECK
#include <catch2/catch.hpp>

#include "tests/testing/temporary_directory.h"

namespace fastgen {
namespace {

std::string Write(const testing::TemporaryDirectory& directory, const std::string& name,
                  const std::string& text) {
  const std::string path = (directory.path() / name).string();
  std::ofstream(path) << text;
  return path;
}

TEST_CASE("a file that holds no PEM of its kind is named with its flag", "[transport]") {
  const testing::TemporaryDirectory directory;
  const std::string certificate = Write(
      directory, "certificate", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
  const std::string garbage = Write(directory, "garbage", "certificate");
  const std::string none = (directory.path() / "none").string();
  struct Row {
    ChannelTls tls;
    std::string message;
  };
  for (const Row& row : {
           Row{{garbage, "", ""}, "--connect-ca " + garbage},
           Row{{none, "", ""}, "--connect-ca " + none},
           Row{{certificate, garbage, certificate}, "--connect-cert " + garbage},
           Row{{certificate, certificate, certificate}, "--connect-key " + certificate},
       }) {
    const auto credentials = MakeChannelCredentials(row.tls);
    REQUIRE(absl::IsInvalidArgument(credentials.status()));
    const std::string message(credentials.status().message());
    INFO(message);
    CHECK(message.rfind(row.message, 0) == 0);
  }
  CHECK(MakeChannelCredentials({}).ok());
}

}  // namespace
}  // namespace fastgen
