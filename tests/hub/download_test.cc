#include "hub/download.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "hub/hub_cache.h"
#include "tests/hub/fake_hub.h"
#include "tests/hub/scoped_env.h"
#include "tests/testing/temporary_directory.h"
#undef CHECK
#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;
using testing::FakeHub;
using testing::HubReply;
using testing::HubRequest;
using testing::kCommit;
using testing::SomeBytes;
using testing::TemporaryDirectory;
using Then = HubReply::Then;

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A hub with a model, and a cache to fetch it into.
struct Bench {
  Bench() {
    files = {{"config.json", "{\"model_type\":\"llama\"}"},
             {"tokenizer.json", "{}"},
             {"README.md", "not needed"},
             {"model.safetensors", SomeBytes(100'000)}};
    hub.SetFiles(files);
    settings.endpoint = hub.endpoint();
    settings.cache = directory.path() / "hub";
    options.ranges.retry.first_delay = absl::Milliseconds(1);
    options.ranges.retry.max_attempts = 4;
    options.ranges.piece_bytes = 10'000;
    options.ranges.min_parallel_bytes = 20'000;
    options.http.connect = absl::Seconds(2);
    options.http.stall = absl::Seconds(1);
  }

  absl::StatusOr<std::string> Fetch(const std::string& model = "org/model") {
    return FetchModel(*ParseHubId(model), settings, options, nullptr);
  }
  fs::path Folder() const { return settings.cache / "models--org--model"; }
  fs::path Blob(const std::string& name) const {
    const std::string& bytes = files.at(name);
    return Folder() / "blobs" /
           (bytes.size() >= testing::kLargeBytes ? testing::Sha256Of(bytes)
                                                 : testing::GitIdOf(bytes));
  }
  // Whether the whole model is there, byte by byte, as the shared layout has it.
  bool IsWhole() const {
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
      const fs::path pointer = Folder() / "snapshots" / kCommit / name;
      if (!fs::is_symlink(pointer) || fs::read_symlink(pointer).is_absolute()) return false;
      if (!fs::equivalent(pointer, Blob(name)) || Read(pointer) != files.at(name)) return false;
    }
    return true;
  }
  // The first `count` requests that hold `part` get the reply that `make` gives; the others the
  // right one.
  void Spoil(const std::string& part, int count,
             std::function<HubReply(const HubRequest&, HubReply)> make) {
    auto left = std::make_shared<std::atomic<int>>(count);
    hub.SetFilter([this, part, left, make](const HubRequest& request) -> std::optional<HubReply> {
      if (!absl::StrContains(absl::StrCat(request.method, " ", request.target), part))
        return std::nullopt;
      if (left->fetch_sub(1) <= 0) return std::nullopt;
      return make(request, hub.Answer(request));
    });
  }

  FakeHub hub;
  TemporaryDirectory directory;
  std::map<std::string, std::string> files;
  HubSettings settings;
  DownloadOptions options;
};

HubReply Status(int status, const std::string& header = "", const std::string& value = "") {
  HubReply reply;
  reply.status = status;
  reply.body = "<html>something else</html>";
  if (!header.empty()) reply.headers = {{header, value}};
  return reply;
}

TEST_CASE("a model is fetched in parallel ranges into the shared layout", "[hub]") {
  Bench bench;
  const auto path = bench.Fetch();
  REQUIRE(path.ok());
  CHECK(*path == (bench.Folder() / "snapshots" / kCommit).string());
  CHECK(bench.IsWhole());
  CHECK(Read(bench.Folder() / "refs" / "main") == kCommit);
  CHECK_FALSE(fs::exists(fs::path(*path) / "README.md"));
  CHECK(bench.hub.Count("GET", "/model.safetensors") ==
        20);  // ten pieces, each by way of the redirect
  for (const auto& entry : fs::directory_iterator(bench.Folder() / "blobs")) {
    CHECK(entry.path().extension() != ".incomplete");
  }
  const size_t num_requests = bench.hub.requests().size();
  CHECK(*bench.Fetch() == *path);
  CHECK(bench.hub.requests().size() == num_requests + 1);  // what the revision is now
  CHECK(*bench.Fetch(absl::StrCat("org/model@", kCommit)) == *path);
  CHECK(bench.hub.requests().size() == num_requests + 1);
}

TEST_CASE("the token goes to the hub and never to where it redirects", "[hub]") {
  Bench bench;
  bench.settings.token = "hf_secret";
  REQUIRE(bench.Fetch().ok());
  int num_to_cdn = 0;
  for (const HubRequest& request : bench.hub.requests()) {
    const auto header = request.headers.find("authorization");
    num_to_cdn += request.to_cdn;
    if (request.to_cdn) {
      CHECK(header == request.headers.end());
    } else {
      REQUIRE(header != request.headers.end());
      CHECK(header->second == "Bearer hf_secret");
    }
  }
  CHECK(num_to_cdn == 10);
  // Also when the list of files and the metadata lead elsewhere.
  Bench other;
  other.settings.token = "hf_secret";
  other.Spoil("/", 1000, [&](const HubRequest& request, HubReply reply) {
    return request.to_cdn ? reply : Status(307, "Location", other.hub.cdn() + request.target);
  });
  CHECK_FALSE(other.Fetch().ok());
  for (const HubRequest& request : other.hub.requests()) {
    if (request.to_cdn) CHECK(request.headers.count("authorization") == 0);
  }
}

TEST_CASE("connections that drop in the middle are taken up where they ended", "[hub]") {
  Bench bench;
  bench.options.ranges.min_parallel_bytes = GENERATE(20'000, 1'000'000);
  bench.Spoil("/model.safetensors", 6, [](const HubRequest& request, HubReply reply) {
    if (!request.to_cdn) return reply;
    reply.send_bytes = 3000;
    reply.then = Then::kClose;
    return reply;
  });
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
}

TEST_CASE("a hub that is out of order for a while is asked again", "[hub]") {
  const int status = GENERATE(500, 502, 503, 429, 408);
  const std::string part =
      GENERATE("/api/", "HEAD ", "GET /model.safetensors", "GET /org/model/resolve");
  CAPTURE(status, part);
  Bench bench;
  bench.Spoil(part, 2, [&](const HubRequest&, HubReply) { return Status(status); });
  const auto path = bench.Fetch();
  CHECK(path.ok());
  CHECK(bench.IsWhole());
}

TEST_CASE("Retry-After is waited for", "[hub]") {
  Bench bench;
  bench.Spoil("/api/", 1,
              [](const HubRequest&, HubReply) { return Status(429, "Retry-After", "1"); });
  const absl::Time begin = absl::Now();
  CHECK(bench.Fetch().ok());
  CHECK(absl::Now() - begin >= absl::Seconds(1));
}

TEST_CASE("a hub that stays out of order is given up with one sentence", "[hub]") {
  Bench bench;
  bench.Spoil("/", 1000, [](const HubRequest&, HubReply) { return Status(503); });
  const absl::Status status = bench.Fetch().status();
  CHECK(status.code() == absl::StatusCode::kUnavailable);
  CHECK(absl::StrContains(status.message(), "HTTP 503"));
  CHECK(bench.hub.requests().size() == 4);
}

TEST_CASE("a refusal is told at once with what to do", "[hub]") {
  struct Case {
    int status;
    const char* code;
    absl::StatusCode expected;
    const char* words;
  };
  const Case refused =
      GENERATE(Case{401, "", absl::StatusCode::kPermissionDenied, "accept the licence at http"},
               Case{403, "GatedRepo", absl::StatusCode::kPermissionDenied, "set HF_TOKEN"},
               Case{401, "RepoNotFound", absl::StatusCode::kNotFound, "no such model"},
               Case{404, "RepoNotFound", absl::StatusCode::kNotFound, "no such model"},
               Case{404, "RevisionNotFound", absl::StatusCode::kNotFound, "has no revision main"},
               Case{404, "", absl::StatusCode::kNotFound, "no such model or revision"});
  const std::string part = GENERATE("/api/", "HEAD ");
  CAPTURE(refused.status, refused.code, part);
  Bench bench;
  bench.Spoil(part, 1000, [&](const HubRequest&, HubReply) {
    return Status(refused.status, "X-Error-Code", refused.code);
  });
  const absl::Status status = bench.Fetch().status();
  CHECK(status.code() == refused.expected);
  INFO(status.message());
  CHECK(absl::StrContains(status.message(), refused.words));
  CHECK(absl::StrContains(status.message(), "org/model"));
  CHECK(bench.hub.Count("GET", "/api/") == 1);
  CHECK(bench.hub.Count("HEAD", "") <= 1);
}

TEST_CASE("a refusal of the bytes is told at once", "[hub]") {
  const int status = GENERATE(401, 403, 404, 400);
  Bench bench;
  bench.Spoil("GET /model.safetensors", 1000,
              [&](const HubRequest&, HubReply) { return Status(status); });
  const absl::Status failed = bench.Fetch().status();
  CHECK_FALSE(failed.ok());
  CHECK(absl::StrContains(failed.message(), absl::StrCat("HTTP ", status)));
  CHECK(absl::StrContains(failed.message(), "org/model/model.safetensors"));
  CHECK(bench.hub.Count("GET", "/model.safetensors") <= 8);  // the pieces that were under way
}

TEST_CASE("a corrupt file is fetched once more, then refused by name", "[hub]") {
  const std::string name = GENERATE("config.json", "model.safetensors");
  const bool mends = GENERATE(true, false);
  CAPTURE(name, mends);
  Bench bench;
  bench.options.ranges.min_parallel_bytes = 1'000'000;
  bench.Spoil("GET /", 1000,
              [&, left = std::make_shared<std::atomic<int>>(mends ? 1 : 1000)](
                  const HubRequest& request, HubReply reply) {
                const bool sends_bytes =
                    absl::EndsWith(request.target, name) && reply.status == 200;
                if (sends_bytes && left->fetch_sub(1) > 0) reply.body[5] ^= 1;
                return reply;
              });
  const absl::Status status = bench.Fetch().status();
  if (mends) {
    CHECK(status.ok());
    CHECK(bench.IsWhole());
    return;
  }
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK(absl::StrContains(status.message(), name));
  CHECK_FALSE(fs::exists(bench.Blob(name)));
  CHECK_FALSE(fs::exists(bench.Blob(name).string() + ".incomplete"));
}

TEST_CASE("a server that ignores ranges gives the whole file once", "[hub]") {
  Bench bench;
  bench.Spoil("GET /model.safetensors", 1000, [&](const HubRequest&, HubReply) {
    HubReply reply;
    reply.body = bench.files.at("model.safetensors");
    return reply;
  });
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
}

TEST_CASE("a server that ignores ranges and drops is given up after its attempts", "[hub]") {
  Bench bench;
  bench.Spoil("GET /model.safetensors", 1000, [&](const HubRequest&, HubReply) {
    HubReply reply;
    reply.body = bench.files.at("model.safetensors");
    reply.send_bytes = 50'000;
    reply.then = Then::kClose;
    return reply;
  });
  CHECK(bench.Fetch().status().code() == absl::StatusCode::kUnavailable);
  CHECK(bench.hub.Count("GET", "/model.safetensors") < 30);
}

TEST_CASE("a body of another length than announced does not pass", "[hub]") {
  Bench bench;
  bench.options.ranges.min_parallel_bytes = GENERATE(20'000, 1'000'000);
  const int change = GENERATE(-1000, 1000);
  CAPTURE(change);
  bench.Spoil("GET /model.safetensors", 1000, [&](const HubRequest&, HubReply reply) {
    if (change < 0) reply.body.resize(100);  // Content-Length fits the body, not the file
    if (change > 0) reply.body += std::string(change, 'x');
    return reply;
  });
  const absl::Status status = bench.Fetch().status();
  CHECK_FALSE(status.ok());
  CHECK(absl::StrContains(status.message(), "model.safetensors"));
}

TEST_CASE("a Content-Length that is too large is a drop", "[hub]") {
  Bench bench;
  bench.Spoil("GET /model.safetensors", 3, [&](const HubRequest&, HubReply reply) {
    reply.content_length = static_cast<int64_t>(reply.body.size()) + 500;
    reply.then = Then::kClose;
    return reply;
  });
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
}

TEST_CASE("a range of other bytes than asked for is refused", "[hub]") {
  Bench bench;
  bench.Spoil("GET /model.safetensors", 1000, [&](const HubRequest&, HubReply reply) {
    for (auto& [name, value] : reply.headers) {
      if (name == "Content-Range") value = "bytes 0-9999/100000";
    }
    return reply;
  });
  const absl::Status status = bench.Fetch().status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("a connection that stands still ends and is tried again", "[hub]") {
  Bench bench;
  bench.options.ranges.min_parallel_bytes = 1'000'000;
  bench.Spoil("GET /model.safetensors", 1, [&](const HubRequest&, HubReply reply) {
    reply.send_bytes = 20'000;
    reply.then = Then::kStall;
    return reply;
  });
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
}

TEST_CASE("redirects in a circle end", "[hub]") {
  const std::string part = GENERATE("/api/", "HEAD ", "GET /org/model/resolve");
  CAPTURE(part);
  Bench bench;
  bench.Spoil(part, 1000, [&](const HubRequest& request, HubReply) {
    return Status(302, "Location", bench.hub.endpoint() + request.target);
  });
  const absl::Status status = bench.Fetch().status();
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(absl::StrContains(status.message(), "redirects"));
}

TEST_CASE("a redirect to another protocol ends at once and is named", "[hub]") {
  const std::string part = GENERATE("GET /api/", "GET /org/model/resolve");
  const std::string location = GENERATE("file:///nowhere", "ftp://127.0.0.1:1/x");
  CAPTURE(part, location);
  Bench bench;
  bench.options.ranges.min_parallel_bytes = 1'000'000;
  bench.Spoil(part, 1000,
              [&](const HubRequest&, HubReply) { return Status(302, "Location", location); });
  const absl::Status status = bench.Fetch().status();
  INFO(status.message());
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(absl::StrContains(status.message(), "a protocol that is not allowed"));
  CHECK(absl::StrContains(status.message(), location.substr(0, location.find(':'))));
  CHECK(bench.hub.Count("GET", part.substr(4)) == 1);
}

TEST_CASE("an address that cannot be is told at once", "[hub]") {
  Bench bench;
  bench.options.ranges.retry.first_delay = absl::Hours(1);
  bench.settings.endpoint = "http://user:hidden@127.0.0.1:99999";
  const absl::Status status = bench.Fetch().status();
  INFO(status.message());
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(absl::StrContains(status.message(), "malformed address"));
  CHECK_FALSE(absl::StrContains(status.message(), "hidden"));
}

TEST_CASE("certificates are a file or a folder; others are told at once", "[hub]") {
  Bench bench;
  bench.settings.endpoint = absl::StrCat("https", bench.hub.endpoint().substr(4));
  bench.options.http.connect = absl::Milliseconds(100);
  bench.options.ranges.retry.max_attempts = 1;
  bench.options.http.ca_file = (bench.directory.path() / "absent.pem").string();
  const absl::Status absent = bench.Fetch().status();
  INFO(absent.message());
  CHECK(absent.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(absl::StrContains(absent.message(), "REQUESTS_CA_BUNDLE"));
  // The folder can be read; what then fails is that the hub speaks no TLS.
  bench.options.http.ca_file = bench.directory.path().string();
  CHECK(bench.Fetch().status().code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("a refusal does not show the endpoint's password", "[hub]") {
  const int refused = GENERATE(401, 404, 400);
  Bench bench;
  const std::string host = bench.settings.endpoint.substr(7);
  bench.settings.endpoint = absl::StrCat("http://user:hidden@", host);
  bench.Spoil("/api/", 1000, [&](const HubRequest&, HubReply) { return Status(refused); });
  const absl::Status status = bench.Fetch().status();
  INFO(status.message());
  CHECK(absl::StrContains(status.message(), absl::StrCat("http://", host)));
  CHECK_FALSE(absl::StrContains(status.message(), "hidden"));
}

TEST_CASE("a hostile list of files changes nothing on disk", "[hub]") {
  const std::string body = GENERATE(
      std::string(
          R"({"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[{"rfilename":"../../../evil.gguf"}]})"),
      std::string(
          R"({"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[{"rfilename":"/tmp/evil.gguf"}]})"),
      std::string(R"({"sha":"../../../../evil","siblings":[]})"), std::string("<html>"),
      std::string(40 << 20, '['));
  Bench bench;
  bench.Spoil("/api/", 1000, [&](const HubRequest&, HubReply) {
    HubReply reply;
    reply.body = body;
    return reply;
  });
  const absl::Status status = bench.Fetch().status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_FALSE(fs::exists(bench.settings.cache));
}

TEST_CASE("an etag that is no plain name is refused", "[hub]") {
  const std::string etag = GENERATE("\"../../evil\"", "\"\"", "\"a/b\"");
  Bench bench;
  bench.Spoil("HEAD ", 1000,
              [&](const HubRequest&, HubReply) { return Status(200, "ETag", etag); });
  CHECK(bench.Fetch().status().code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("a model that does not fit the disk is refused with both figures", "[hub]") {
  Bench bench;
  bench.Spoil("/", 1000, [&](const HubRequest& request, HubReply reply) {
    constexpr char kHuge[] = "1000000000000000000";
    if (absl::StrContains(request.target, "/api/")) {
      reply.body = absl::StrCat(R"({"sha":")", kCommit,
                                R"(","siblings":[{"rfilename":"m.gguf","size":)", kHuge, "}]}");
      return reply;
    }
    HubReply head;
    head.status = 302;
    head.headers = {{"Location", bench.hub.cdn()},
                    {"X-Linked-Etag", std::string(64, 'a')},
                    {"X-Linked-Size", kHuge}};
    return head;
  });
  const absl::Status status = bench.Fetch().status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(status.message(), "953674316406.2 MiB must be fetched"));
  CHECK(absl::StrContains(status.message(), "MiB free"));
}

TEST_CASE("two downloaders at once fetch each byte once", "[hub]") {
  Bench bench;
  std::vector<absl::StatusOr<std::string>> paths(4, absl::UnknownError(""));
  std::vector<std::thread> threads;
  for (auto& path : paths) threads.emplace_back([&] { path = bench.Fetch(); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& path : paths) CHECK(path.ok());
  CHECK(bench.IsWhole());
  CHECK(bench.hub.Count("GET", "/model.safetensors") == 20);
}

TEST_CASE("a file that is linked again is never missing for who reads it", "[hub]") {
  TemporaryDirectory directory;
  const HubCache cache(directory.path(), "org/model");
  REQUIRE(cache.Prepare().ok());
  for (const char* etag : {"one", "two"}) std::ofstream(cache.Blob(etag)) << "bytes";
  // The same link again, or one that must be changed each time.
  const bool changes = GENERATE(false, true);
  CAPTURE(changes);
  REQUIRE(cache.Link(kCommit, "sub/config.json", "one").ok());
  std::atomic<bool> ends = false;
  std::atomic<int> num_missing = 0, num_reads = 0, num_failed = 0;
  std::thread reader([&] {
    while (!ends) {
      num_missing += Read(cache.Snapshot(kCommit) / "sub" / "config.json") != "bytes";
      ++num_reads;
    }
  });
  while (num_reads == 0) std::this_thread::yield();
  std::vector<std::thread> linkers;
  for (int linker = 0; linker < 3; ++linker) {
    linkers.emplace_back([&, linker] {
      for (int i = 0; i < 1000; ++i) {
        const char* etag = changes && (i + linker) % 2 == 1 ? "two" : "one";
        num_failed += !cache.Link(kCommit, "sub/config.json", etag).ok();
      }
    });
  }
  for (std::thread& linker : linkers) linker.join();
  ends = true;
  reader.join();
  CHECK(num_missing == 0);
  CHECK(num_failed == 0);
  const fs::directory_iterator left(cache.Snapshot(kCommit) / "sub");
  CHECK(std::distance(begin(left), end(left)) == 1);
}

TEST_CASE("a link that leads elsewhere or nowhere is put right", "[hub]") {
  TemporaryDirectory directory;
  const HubCache cache(directory.path(), "org/model");
  REQUIRE(cache.Prepare().ok());
  std::ofstream(cache.Blob("right")) << "bytes";
  const fs::path pointer = cache.Snapshot(kCommit) / "config.json";
  fs::create_directories(pointer.parent_path());
  switch (GENERATE(0, 1, 2)) {
    case 0:
      fs::create_symlink("../../blobs/wrong", pointer);
      break;
    case 1:
      fs::create_symlink(directory.path() / "nowhere", pointer);
      break;
    default:
      std::ofstream(pointer) << "a file of its own";
  }
  REQUIRE(cache.Link(kCommit, "config.json", "right").ok());
  CHECK(fs::read_symlink(pointer) == "../../blobs/right");
  CHECK(Read(pointer) == "bytes");
}

TEST_CASE("a process killed in the middle leaves a part that the next one goes on from", "[hub]") {
  Bench bench;
  bench.options.ranges.min_parallel_bytes = 1'000'000;
  bench.options.http.stall = absl::Seconds(60);
  bench.Spoil("GET /model.safetensors", 1, [&](const HubRequest&, HubReply reply) {
    reply.send_bytes = 40'000;
    reply.then = Then::kStall;
    return reply;
  });
  const pid_t child = fork();
  if (child == 0) {
    (void)bench.Fetch();
    _exit(0);
  }
  const fs::path part = bench.Blob("model.safetensors").string() + ".incomplete";
  std::error_code error;
  while (fs::file_size(part, error) != 40'000 || error) usleep(1000);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  CHECK_FALSE(fs::exists(bench.Folder() / "refs" / "main"));
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
  const std::vector<HubRequest> requests = bench.hub.requests();
  CHECK(requests.back().headers.at("range") == "bytes=40000-99999");
}

TEST_CASE("a part with wrong bytes is thrown away", "[hub]") {
  Bench bench;
  const size_t num_bytes = GENERATE(10, 100'000, 100'001);
  fs::create_directories(bench.Folder() / "blobs");
  std::ofstream(bench.Blob("model.safetensors").string() + ".incomplete")
      << std::string(num_bytes, 'x');
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
}

TEST_CASE("a part of a file without a checksum is not gone on from", "[hub]") {
  // Neither the list nor the etag tells a checksum; 64 characters alone are none.
  const std::string etag = GENERATE(std::string("version-1"), std::string(64, 'z'));
  CAPTURE(etag);
  Bench bench;
  bench.Spoil("", 1000, [&](const HubRequest& request, HubReply reply) {
    if (absl::StrContains(request.target, "/api/")) {
      reply.body = absl::StrCat(R"({"sha":")", kCommit, R"(","siblings":[)",
                                R"({"rfilename":"config.json"},{"rfilename":"tokenizer.json"},)",
                                R"({"rfilename":"model.safetensors","size":100000}]})");
    }
    const bool is_weights = absl::EndsWith(request.target, "model.safetensors");
    for (auto& [name, value] : reply.headers) {
      if (is_weights && name == "X-Linked-Etag") value = etag;
    }
    return reply;
  });
  const fs::path blobs = bench.Folder() / "blobs";
  fs::create_directories(blobs);
  std::ofstream(blobs / (etag + ".incomplete")) << std::string(50'000, 'x');
  REQUIRE(bench.Fetch().ok());
  CHECK(Read(blobs / etag) == bench.files["model.safetensors"]);
}

TEST_CASE("a part whose name leads elsewhere is made anew and leaves that alone", "[hub]") {
  Bench bench;
  const fs::path part = bench.Blob("model.safetensors").string() + ".incomplete";
  const fs::path victim = bench.directory.path() / "victim";
  std::ofstream(victim) << "precious";
  fs::create_directories(part.parent_path());
  switch (GENERATE(0, 1, 2, 3)) {
    case 0:
      fs::create_symlink(victim, part);
      break;
    case 1:
      fs::create_symlink(bench.directory.path() / "nowhere", part);
      break;
    case 2:
      fs::create_directory(part);
      break;
    default:
      REQUIRE(mkfifo(part.c_str(), 0600) == 0);
  }
  REQUIRE(bench.Fetch().ok());
  CHECK(bench.IsWhole());
  CHECK(fs::is_regular_file(fs::symlink_status(bench.Blob("model.safetensors"))));
  CHECK(Read(victim) == "precious");
  CHECK_FALSE(fs::exists(bench.directory.path() / "nowhere"));
}

TEST_CASE("without a hub the last known copy serves, and without a copy the sentence says so",
          "[hub]") {
  Bench bench;
  const std::string path = *bench.Fetch();
  const std::string endpoint = bench.settings.endpoint;
  bench.settings.endpoint = "http://127.0.0.1:1";
  CHECK(*bench.Fetch() == path);
  bench.settings.is_offline = true;
  CHECK(*bench.Fetch() == path);
  CHECK(bench.Fetch("org/model@v2").status().code() == absl::StatusCode::kNotFound);
  bench.settings.is_offline = false;
  const absl::Status absent = bench.Fetch("org/other").status();
  CHECK(absent.code() == absl::StatusCode::kUnavailable);
  CHECK(absl::StrContains(absent.message(), "not in the cache"));
  // Half a copy is none.
  bench.settings.is_offline = true;
  fs::remove(bench.Folder() / "snapshots" / kCommit / "model.safetensors");
  CHECK(bench.Fetch().status().code() == absl::StatusCode::kNotFound);
  // A refusal is not the end while there is a copy.
  bench.settings.is_offline = false;
  bench.settings.endpoint = endpoint;
  REQUIRE(bench.Fetch().ok());
  bench.Spoil("/api/", 1000, [](const HubRequest&, HubReply) { return Status(401); });
  CHECK(*bench.Fetch() == path);
}

TEST_CASE("a branch that moved is fetched anew and shares what did not change", "[hub]") {
  Bench bench;
  REQUIRE(bench.Fetch().ok());
  bench.files["config.json"] = "{\"model_type\":\"qwen2\"}";
  bench.hub.SetFiles(bench.files, testing::kOtherCommit);
  const int num_before = bench.hub.Count("GET", "/model.safetensors");
  const auto path = bench.Fetch();
  REQUIRE(path.ok());
  CHECK(absl::EndsWith(*path, testing::kOtherCommit));
  CHECK(Read(fs::path(*path) / "config.json") == bench.files["config.json"]);
  CHECK(Read(fs::path(*path) / "model.safetensors") == bench.files["model.safetensors"]);
  CHECK(bench.hub.Count("GET", "/model.safetensors") == num_before);
  CHECK(Read(bench.Folder() / "refs" / "main") == testing::kOtherCommit);
}

TEST_CASE("one GGUF file is fetched by its name", "[hub]") {
  Bench bench;
  bench.files = {{"sub/a.gguf", SomeBytes(5000)}, {"b.gguf", SomeBytes(6000)}};
  bench.hub.SetFiles(bench.files);
  const auto path = bench.Fetch("org/model:sub/a.gguf");
  REQUIRE(path.ok());
  CHECK(absl::EndsWith(*path, "/sub/a.gguf"));
  CHECK(Read(*path) == bench.files["sub/a.gguf"]);
  CHECK(fs::read_symlink(*path) ==
        fs::path("../../../blobs") / testing::Sha256Of(bench.files["sub/a.gguf"]));
  CHECK_FALSE(fs::exists(bench.Blob("b.gguf")));
  CHECK(bench.Fetch("org/model").status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace fastgen
