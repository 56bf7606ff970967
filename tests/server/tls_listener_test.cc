#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "fastgen/v1/admin.grpc.pb.h"
#include "server/in_process.h"
#include "tests/server/test_daemon.h"
#include "tests/testing/certificates.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder

grpc::StatusCode Info(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::ModelInfo info;
  return v1::Inference::NewStub(channel)->GetModelInfo(&context, {}, &info).error_code();
}

grpc::StatusCode Stats(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::Stats stats;
  return v1::Admin::NewStub(channel)->GetStats(&context, {}, &stats).error_code();
}

std::shared_ptr<grpc::Channel> Plain(const std::string& address) {
  return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
}

std::shared_ptr<grpc::Channel> Secure(const std::string& address, const std::string& ca,
                                      const PemPair& pair = {}) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ca;
  options.pem_cert_chain = pair.certificate;
  options.pem_private_key = pair.key;
  // A channel of its own, so that each one shakes hands anew.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(options), arguments);
}

TEST_CASE("gRPC speaks TLS, to clients that trust its CA", "[server]") {
  const TestAuthority authority("ours"), strangers("strangers");
  const PemFolder folder;
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0", "localhost:0"};
  options.tls = folder.Write(authority.Issue("first"));
  TestDaemon daemon(options);
  for (const std::string& address : daemon.daemon->grpc_addresses()) {
    CHECK(Info(Secure(address, authority.certificate())) == grpc::StatusCode::OK);
    CHECK(Info(Secure(address, strangers.certificate())) == grpc::StatusCode::UNAVAILABLE);
    CHECK(Info(Plain(address)) == grpc::StatusCode::UNAVAILABLE);
  }
}

TEST_CASE("gRPC with a client CA serves its certificates only", "[server]") {
  const TestAuthority authority("ours"), strangers("strangers");
  const PemFolder folder;
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  options.tls = folder.Write(authority.Issue("server"), authority.certificate());
  TestDaemon daemon(options);
  const std::string address = daemon.daemon->grpc_addresses()[0];
  const std::string& ca = authority.certificate();
  CHECK(Info(Secure(address, ca)) == grpc::StatusCode::UNAVAILABLE);
  CHECK(Info(Secure(address, ca, strangers.Issue("client"))) == grpc::StatusCode::UNAVAILABLE);
  CHECK(Info(Secure(address, ca, authority.Issue("client"))) == grpc::StatusCode::OK);
}

TEST_CASE("gRPC takes a new certificate and keeps it when a bad one follows", "[server]") {
  const TestAuthority first("first"), second("second");
  const PemFolder folder;
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  options.tls = folder.Write(first.Issue("server"));
  TestDaemon daemon(options);
  const std::string address = daemon.daemon->grpc_addresses()[0];
  const auto old = Secure(address, first.certificate());
  CHECK(Info(old) == grpc::StatusCode::OK);
  folder.Write(second.Issue("server"));
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  CHECK(Info(Secure(address, second.certificate())) == grpc::StatusCode::OK);
  CHECK(Info(Secure(address, first.certificate())) == grpc::StatusCode::UNAVAILABLE);
  CHECK(Info(old) == grpc::StatusCode::OK);  // its connection goes on
  folder.Put("key.pem", "garbage");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  CHECK(Info(Secure(address, second.certificate())) == grpc::StatusCode::OK);
}

TEST_CASE("with an admin listener the main ones do not know Admin", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  options.admin_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  const auto main = Plain(daemon.daemon->grpc_addresses()[0]);
  const auto admin = Plain(daemon.daemon->admin_addresses()[0]);
  CHECK(Info(main) == grpc::StatusCode::OK);
  CHECK(Stats(main) == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(Info(admin) == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(Stats(admin) == grpc::StatusCode::OK);
  // The gateway's channel has both.
  CHECK(Info(daemon.daemon->channel()) == grpc::StatusCode::OK);
  CHECK(Stats(daemon.daemon->channel()) == grpc::StatusCode::OK);
}

TEST_CASE("without an admin listener the main one has both services", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  const auto main = Plain(daemon.daemon->grpc_addresses()[0]);
  CHECK(Info(main) == grpc::StatusCode::OK);
  CHECK(Stats(main) == grpc::StatusCode::OK);
  CHECK(daemon.daemon->admin_addresses().empty());
}

TEST_CASE("a socket file is for its owner and group, and is plain", "[server]") {
  const PemFolder folder;
  const TestAuthority authority("ours");
  DaemonOptions options;
  const std::string path = folder.path() + "/socket";
  options.grpc_listen = {"unix:" + path};
  options.tls = folder.Write(authority.Issue("server"));
  {
    TestDaemon daemon(options);
    struct stat found = {};
    REQUIRE(stat(path.c_str(), &found) == 0);
    CHECK((found.st_mode & 0777) == 0660);
    CHECK(Info(Plain("unix:" + path)) == grpc::StatusCode::OK);
  }
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a public address without keys is refused until it is said", "[server]") {
  const PemFolder folder;
  const TestAuthority authority("ours");
  const auto start = [](const DaemonOptions& options) {
    return Daemon::StartWith(options, nullptr, PartsWith(std::make_unique<FakeEngine>())).status();
  };
  for (auto listen :
       {&DaemonOptions::grpc_listen, &DaemonOptions::http_listen, &DaemonOptions::admin_listen}) {
    for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
      DaemonOptions options;
      options.*listen = {"unix:" + folder.path() + "/s", address};
      const absl::Status status = start(options);
      INFO(status.ToString());
      CHECK(status.code() == absl::StatusCode::kInvalidArgument);
      CHECK(status.message().find(address) != absl::string_view::npos);
      CHECK(status.message().find("--allow-public-without-keys") != absl::string_view::npos);
    }
  }
  DaemonOptions options;
  options.grpc_listen = {"0.0.0.0:0"};
  options.tls = folder.Write(authority.Issue("server"));
  CHECK_FALSE(start(options).ok());  // encrypted, but for everybody
  options.tls = folder.Write(authority.Issue("server"), authority.certificate());
  CHECK(start(options).ok());
  options.tls = {};
  options.allow_public_without_keys = true;
  CHECK(start(options).ok());
  options.allow_public_without_keys = false;
  options.api_keys_path = folder.Put("keys", "# none yet\n");
  const absl::Status without_keys = start(options);
  CHECK_FALSE(without_keys.ok());  // a file without a key would lock everybody out
  CHECK(without_keys.message().find("--allow-public") == absl::string_view::npos);
  options.api_keys_path = folder.Put("keys", "a sha256:" + std::string(64, '1') + " infer\n");
  CHECK(start(options).ok());
}

}  // namespace
}  // namespace fastgen
