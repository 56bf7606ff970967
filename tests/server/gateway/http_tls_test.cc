#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/gateway/gateway_fixture.h"
#include "tests/testing/certificates.h"

namespace fastgen::gateway {
namespace {

using testing::Gateway;
using testing::HttpClient;
using testing::PemFolder;
using testing::PemPair;
using testing::TestAuthority;

constexpr char kGet[] = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";

// A blocking TLS client; every wait ends after 20 s.
class TlsClient {
 public:
  struct Wish {
    const PemPair* pair = nullptr;
    int max_version = TLS1_3_VERSION;
    std::string protocols = "\x08http/1.1";
  };

  TlsClient(const std::string& address, const std::string& ca, const Wish& wish)
      : context_(SSL_CTX_new(TLS_client_method())) {
    Trust(ca);
    SSL_CTX_set_max_proto_version(context_, wish.max_version);
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_security_level(context_, 0);
    if (wish.pair != nullptr) Show(*wish.pair);
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    const timeval limit = {20, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + address.rfind(':') + 1)));
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof(to));
    ssl_ = SSL_new(context_);
    SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(wish.protocols.data()),
                        static_cast<unsigned>(wish.protocols.size()));
    SSL_set_fd(ssl_, socket_);
    connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    if (socket_ >= 0) close(socket_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool connected() const { return connected_; }
  std::string version() const { return SSL_get_version(ssl_); }
  std::string protocol() const {
    const unsigned char* name = nullptr;
    unsigned num_bytes = 0;
    SSL_get0_alpn_selected(ssl_, &name, &num_bytes);
    return std::string(reinterpret_cast<const char*>(name), num_bytes);
  }
  std::string server_name() const {
    X509* peer = SSL_get1_peer_certificate(ssl_);
    if (peer == nullptr) return "";
    char name[256] = {};
    X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof(name));
    X509_free(peer);
    return name;
  }
  bool Send(std::string_view bytes) {
    return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) ==
           static_cast<int>(bytes.size());
  }
  // All that comes until `text` or the end.
  std::string ReadUntil(const std::string& text) {
    std::string got;
    char bytes[16384];
    while (got.find(text) == std::string::npos) {
      const int num_bytes = SSL_read(ssl_, bytes, sizeof(bytes));
      if (num_bytes <= 0) return got + "(end)";
      got.append(bytes, static_cast<size_t>(num_bytes));
    }
    return got;
  }
  // The server said that it is done, rather than that the connection broke.
  bool EndsCleanly() {
    char byte = 0;
    return SSL_read(ssl_, &byte, 1) == 0 && SSL_get_shutdown(ssl_) == SSL_RECEIVED_SHUTDOWN;
  }
  // New keys for both directions.
  bool UpdateKeys() { return SSL_key_update(ssl_, SSL_KEY_UPDATE_REQUESTED) == 1; }

 private:
  void Trust(const std::string& ca) {
    BIO* bio = BIO_new_mem_buf(ca.data(), static_cast<int>(ca.size()));
    X509* authority = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), authority);
    X509_free(authority);
    BIO_free(bio);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
  }
  void Show(const PemPair& pair) {
    BIO* bio = BIO_new_mem_buf(pair.certificate.data(), static_cast<int>(pair.certificate.size()));
    X509* own = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context_, own);
    X509_free(own);
    BIO_free(bio);
    bio = BIO_new_mem_buf(pair.key.data(), static_cast<int>(pair.key.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(context_, key);
    EVP_PKEY_free(key);
    BIO_free(bio);
  }

  SSL_CTX* const context_;
  int socket_ = -1;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
};

struct TlsGateway {
  explicit TlsGateway(bool asks_clients = false, GatewayOptions options = {}) {
    options.tls =
        folder.Write(authority.Issue("first"), asks_clients ? authority.certificate() : "");
    gateway = std::make_unique<Gateway>(options);
  }
  TlsClient Connect(const TlsClient::Wish& wish = {}) {
    return TlsClient(gateway->address(), authority.certificate(), wish);
  }
  // Whether a request is answered: with TLS 1.3 a client learns only then that its certificate was
  // refused.
  bool Serves(const TlsClient::Wish& wish = {}) {
    TlsClient client = Connect(wish);
    return client.connected() && client.Send(kGet) &&
           client.ReadUntil("}").find("200 OK") != std::string::npos;
  }

  TestAuthority authority{"ours"};
  PemFolder folder;
  std::unique_ptr<Gateway> gateway;
};

TEST_CASE("HTTPS serves whole answers, streams and pipelined requests", "[gateway]") {
  TlsGateway tls;
  TlsClient client = tls.Connect();
  REQUIRE(client.connected());
  CHECK(client.version() == "TLSv1.3");
  CHECK(client.protocol() == "http/1.1");
  for (int i = 0; i < 3; ++i) {
    CHECK(client.Send(kGet));
    CHECK(client.ReadUntil("}").find("200 OK") != std::string::npos);
    CHECK(client.Send(HttpClient::PostText("/completions", R"({"prompt":"x","stream":true})")));
    CHECK(client.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n").find("(end)") == std::string::npos);
  }
  CHECK(client.UpdateKeys());
  CHECK(client.Send(absl::StrCat(kGet, kGet, "GET /models/last HTTP/1.1\r\nHost: x\r\n\r\n")));
  CHECK(client.ReadUntil("'last'").find("(end)") == std::string::npos);
}

TEST_CASE("bodies and answers larger than a TLS record pass whole", "[gateway]") {
  TlsGateway tls;
  tls.gateway->daemon.on_generate = [](const v1::GenerateRequest& request) {
    return testing::AnswerScript({request.text()});
  };
  TlsClient client = tls.Connect();
  const std::string long_text(3 << 20, 'x');
  for (int i = 0; i < 2; ++i) {
    REQUIRE(client.Send(
        HttpClient::PostText("/completions", absl::StrCat(R"({"prompt":")", long_text, R"("})"))));
    const std::string answer = client.ReadUntil("\"usage\"");
    CHECK(answer.find(long_text) != std::string::npos);
    client.ReadUntil("}}");
    REQUIRE(client.Send(kGet));
    CHECK(client.ReadUntil("}").find("200 OK") != std::string::npos);
  }
}

TEST_CASE("the end of a connection is said, not cut", "[gateway]") {
  TlsGateway tls;
  TlsClient client = tls.Connect();
  CHECK(client.Send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  client.ReadUntil("}");
  CHECK(client.EndsCleanly());
}

TEST_CASE("TLS 1.2 is spoken, 1.1 is not; a client that wants HTTP/2 only is refused",
          "[gateway]") {
  TlsGateway tls;
  TlsClient::Wish wish;
  wish.max_version = TLS1_2_VERSION;
  CHECK(tls.Serves(wish));
  wish.max_version = TLS1_1_VERSION;
  CHECK_FALSE(tls.Connect(wish).connected());
  TlsClient::Wish both, http2, none;
  both.protocols = "\x02h2\x08http/1.1";
  http2.protocols = "\x02h2";
  none.protocols = "";
  CHECK(tls.Connect(both).protocol() == "http/1.1");
  CHECK_FALSE(tls.Connect(http2).connected());
  CHECK(tls.Serves(none));
}

TEST_CASE("with a client CA only its certificates are served", "[gateway]") {
  TlsGateway tls(true);
  const TestAuthority strangers("strangers");
  const PemPair ours = tls.authority.Issue("client");
  const PemPair theirs = strangers.Issue("client");
  TlsClient::Wish wish;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    wish.max_version = version;
    wish.pair = &ours;
    CHECK(tls.Serves(wish));
    wish.pair = &theirs;
    CHECK_FALSE(tls.Serves(wish));
    wish.pair = nullptr;
    CHECK_FALSE(tls.Serves(wish));
  }
  wish.pair = &ours;
  CHECK(tls.Serves(wish));
}

TEST_CASE("a new certificate is shown to new connections, and old ones go on", "[gateway]") {
  TlsGateway tls;
  TlsClient old = tls.Connect();
  CHECK(old.server_name() == "first");
  tls.folder.Write(tls.authority.Issue("second"));
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  CHECK(tls.Connect().server_name() == "second");
  CHECK(old.Send(kGet));
  CHECK(old.ReadUntil("}").find("200 OK") != std::string::npos);
  tls.folder.Put("cert.pem", "garbage");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  CHECK(tls.Connect().server_name() == "second");
}

TEST_CASE("plain HTTP on a TLS port is told so, and garbage ends", "[gateway]") {
  TlsGateway tls;
  HttpClient plain(tls.gateway->address());
  plain.Send(kGet);
  const testing::HttpReply reply = plain.Read();
  CHECK(reply.status == 400);
  CHECK(reply.body.find("HTTPS") != std::string::npos);
  for (const std::string& bytes : {std::string(100, '\0'), std::string(5000, 'x'),
                                   std::string("\x16\x03\x01\xff\xff") + std::string(70000, 'y'),
                                   std::string("\x16\x03\x03\x00\x04\x01\x00\x00\x00", 9),
                                   std::string("\x80\x2e\x01\x03\x01") + std::string(60, 'z')}) {
    HttpClient garbage(tls.gateway->address());
    garbage.Send(bytes);
    CHECK(garbage.ReadToEnd(absl::Seconds(15)));
  }
  CHECK(tls.Serves());
}

TEST_CASE("a handshake that does not go on is given up, and holds up no drain", "[gateway]") {
  GatewayOptions options;
  options.handshake_timeout = absl::Milliseconds(200);
  TlsGateway tls(false, options);
  HttpClient silent(tls.gateway->address());
  HttpClient half(tls.gateway->address());
  half.Send(std::string_view("\x16\x03\x01\x02\x00\x01", 6));
  CHECK(silent.ReadToEnd(absl::Seconds(10)));
  CHECK(half.ReadToEnd(absl::Seconds(10)));

  TlsGateway patient;
  HttpClient waiting(patient.gateway->address());
  CHECK(patient.Serves());
  patient.gateway->server->StopAccepting();
  CHECK(patient.gateway->server->WaitIdle(absl::Seconds(5)));
}

TEST_CASE("a TLS client that leaves mid-stream cancels its call", "[gateway]") {
  TlsGateway tls;
  tls.gateway->daemon.on_generate = [](const v1::GenerateRequest&) {
    testing::GenerateScript script;
    script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a")};
    script.repeat_last = true;
    return script;
  };
  {
    TlsClient client = tls.Connect();
    CHECK(client.Send(HttpClient::PostText("/completions", R"({"prompt":"x","stream":true})")));
    client.ReadUntil("data: ");
  }
  CHECK(tls.gateway->daemon.WaitForCancelled(1, absl::Seconds(10)));
}

TEST_CASE("a bad TLS file is refused at the start", "[gateway]") {
  Gateway gateway;
  const PemFolder folder;
  GatewayOptions options;
  options.listen = {"127.0.0.1:0"};
  options.tls = folder.Write({"garbage", "garbage"});
  const absl::Status status = HttpServer::Start(options, gateway.daemon.channel()).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message().find("--tls-cert") == 0);
}

}  // namespace
}  // namespace fastgen::gateway
