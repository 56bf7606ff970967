#include "server/transport/tls_source.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <thread>

#include "tests/testing/certificates.h"

namespace fastgen {
namespace {

using testing::PemFolder;
using testing::PemPair;
using testing::TestAuthority;

// The look at the files is held to one a second.
std::shared_ptr<const TlsMaterial> NextLook(TlsSource* source) {
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  return source->Current();
}

TEST_CASE("a certificate, its key and a client CA are taken", "[transport]") {
  const TestAuthority authority("a");
  const PemFolder folder;
  const PemPair pair = authority.Issue("server");
  const auto source = TlsSource::Open(folder.Write(pair, authority.certificate()));
  REQUIRE(source.ok());
  const auto material = (*source)->Current();
  CHECK(material->certificate == pair.certificate);
  CHECK(material->key == pair.key);
  CHECK(material->client_ca == authority.certificate());
  CHECK(material->context != nullptr);
}

TEST_CASE("what is wrong with the files is one sentence with flag and file", "[transport]") {
  const TestAuthority authority("a");
  const PemFolder folder;
  const PemPair good = authority.Issue("server");
  const PemPair other = authority.Issue("other");
  const auto refused = [&](const PemPair& pair, const std::string& client_ca,
                           const std::string& flag, const std::string& file) {
    const absl::Status status = TlsSource::Open(folder.Write(pair, client_ca)).status();
    INFO(status.ToString());
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(status.message()).rfind(flag + " " + folder.path() + "/" + file, 0) == 0);
    CHECK(status.message().find('\n') == absl::string_view::npos);
  };
  refused({"", good.key}, "", "--tls-cert", "cert.pem");
  refused({"garbage", good.key}, "", "--tls-cert", "cert.pem");
  refused({good.key, good.key}, "", "--tls-cert", "cert.pem");
  refused({good.certificate, ""}, "", "--tls-key", "key.pem");
  refused({good.certificate, good.certificate}, "", "--tls-key", "key.pem");
  refused({good.certificate, other.key}, "", "--tls-key", "key.pem");
  refused(good, "garbage", "--tls-client-ca", "ca.pem");
  refused({std::string(5 << 20, 'x'), good.key}, "", "--tls-cert", "cert.pem");

  TlsFiles files = folder.Write(good);
  files.key += ".absent";
  CHECK(TlsSource::Open(files).status().message().find("No such file") != absl::string_view::npos);
  files.key = folder.path();  // a folder
  CHECK(TlsSource::Open(files).status().code() == absl::StatusCode::kInvalidArgument);
  files.key = "";
  CHECK(TlsSource::Open(files).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("a new pair is taken, a bad or half one leaves the old in force", "[transport]") {
  const TestAuthority authority("a");
  const PemFolder folder;
  const PemPair first = authority.Issue("first");
  const PemPair second = authority.Issue("second");
  const auto opened = TlsSource::Open(folder.Write(first));
  REQUIRE(opened.ok());
  TlsSource* source = opened->get();
  const auto before = source->Current();
  CHECK(NextLook(source) == before);

  folder.Put("cert.pem", second.certificate);  // its key is not there yet
  CHECK(NextLook(source)->certificate == first.certificate);
  folder.Put("key.pem", second.key);
  const auto after = NextLook(source);
  CHECK(after->certificate == second.certificate);
  CHECK(after->generation != before->generation);

  folder.Put("cert.pem", "garbage");
  CHECK(NextLook(source) == after);
  std::filesystem::remove(folder.path() + "/cert.pem");
  CHECK(NextLook(source) == after);
  folder.Write(second);
  CHECK(NextLook(source)->generation == after->generation);  // the same again
  folder.Write(first);
  CHECK(NextLook(source)->certificate == first.certificate);
}

}  // namespace
}  // namespace fastgen
