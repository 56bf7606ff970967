#include "server/transport/listen_address.h"

#include <catch2/catch.hpp>

namespace fastgen {
namespace {

TEST_CASE("what is not an address is refused with the flag and the value", "[transport]") {
  for (const char* address :
       {"", "localhost", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:-1",
        "::1:80", "127.0.0.1:http", "unix:", "256.256.256.256:80", "not an address"}) {
    INFO(address);
    const absl::Status status = CheckCanListen(address, "--grpc-listen");
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(status.message()).find(std::string("--grpc-listen ") + address) == 0);
  }
  CHECK(CheckCanListen("unix:/" + std::string(200, 'x'), "f").code() ==
        absl::StatusCode::kInvalidArgument);
}

TEST_CASE("free addresses are accepted", "[transport]") {
  CHECK(CheckCanListen("127.0.0.1:0", "f").ok());
  CHECK(CheckCanListen("localhost:0", "f").ok());
  CHECK(CheckCanListen("0.0.0.0:0", "f").ok());
  CHECK(CheckCanListen("unix:/tmp/fastgen-no-such-socket", "f").ok());
}

TEST_CASE("an address of another machine is refused", "[transport]") {
  CHECK(CheckCanListen("192.0.2.1:80", "f").code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("addresses that other machines reach are told from those of this machine",
          "[transport]") {
  for (const char* address :
       {"127.0.0.1:80", "127.9.9.9:0", "[::1]:80", "[::ffff:127.0.0.1]:80", "localhost:80",
        "unix:/s", "not an address", "no.such.host.invalid:80"}) {
    INFO(address);
    CHECK_FALSE(IsPublicAddress(address));
  }
  for (const char* address :
       {"0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80"}) {
    INFO(address);
    CHECK(IsPublicAddress(address));
  }
}

TEST_CASE("ports and wildcards are rewritten", "[transport]") {
  CHECK(WithPort("127.0.0.1:0", 77) == "127.0.0.1:77");
  CHECK(WithPort("[::1]:0", 77) == "[::1]:77");
  CHECK(WithPort("unix:/a:0", 1) == "unix:/a:0");
  CHECK(ToConnect("0.0.0.0:5") == "127.0.0.1:5");
  CHECK(ToConnect("[::]:5") == "[::1]:5");
  CHECK(ToConnect("example.org:5") == "example.org:5");
}

}  // namespace
}  // namespace fastgen
