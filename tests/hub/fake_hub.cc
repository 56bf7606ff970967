#include "tests/hub/fake_hub.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "hub/digest.h"

namespace fastgen::testing {
namespace {

bool SendAll(int socket, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t sent = send(socket, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
  }
  return true;
}

// The next request of a connection; nullopt at its end. `rest` holds what came beyond it.
std::optional<HubRequest> Receive(int socket, std::string* rest) {
  size_t end;
  while ((end = rest->find("\r\n\r\n")) == std::string::npos) {
    char bytes[4096];
    const ssize_t got = recv(socket, bytes, sizeof(bytes), 0);
    if (got <= 0) return std::nullopt;
    rest->append(bytes, got);
  }
  const std::string head = rest->substr(0, end);
  rest->erase(0, end + 4);
  HubRequest request;
  const std::vector<std::string> lines = absl::StrSplit(head, "\r\n");
  const std::vector<std::string> first = absl::StrSplit(lines[0], ' ');
  request.method = first[0];
  request.target = first[1];
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::pair<std::string, std::string> header =
        absl::StrSplit(lines[i], absl::MaxSplits(": ", 1));
    request.headers[absl::AsciiStrToLower(header.first)] = header.second;
  }
  return request;
}

// A file's bytes, or those of the range that was asked for.
HubReply FileReply(const HubRequest& request, const std::string& bytes) {
  HubReply reply;
  reply.headers = {{"Accept-Ranges", "bytes"}};
  const auto range = request.headers.find("range");
  if (range == request.headers.end()) {
    reply.body = bytes;
    return reply;
  }
  const std::pair<std::string, std::string> ends =
      absl::StrSplit(absl::StripPrefix(range->second, "bytes="), absl::MaxSplits('-', 1));
  size_t begin = 0, last = 0;
  CHECK(absl::SimpleAtoi(ends.first, &begin)) << range->second;
  if (!absl::SimpleAtoi(ends.second, &last)) last = bytes.size() - 1;
  if (begin >= bytes.size()) {
    reply.status = 416;
    return reply;
  }
  last = std::min(last, bytes.size() - 1);
  reply.status = 206;
  reply.headers.emplace_back("Content-Range",
                             absl::StrCat("bytes ", begin, "-", last, "/", bytes.size()));
  reply.body = bytes.substr(begin, last - begin + 1);
  return reply;
}

}  // namespace

std::string Sha256Of(const std::string& bytes) {
  Digest digest = Digest::Sha256();
  digest.Update(bytes);
  return digest.Finish();
}

std::string GitIdOf(const std::string& bytes) {
  Digest digest = Digest::GitBlob(bytes.size());
  digest.Update(bytes);
  return digest.Finish();
}

std::string SomeBytes(size_t num_bytes) {
  std::string bytes(num_bytes, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

FakeHub::FakeHub() {
  setenv("no_proxy", "127.0.0.1", 1);  // whatever the machine has
  for (int which : {0, 1}) {
    Listener& listener = listeners_[which];
    listener.socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    CHECK(bind(listener.socket, reinterpret_cast<sockaddr*>(&address), size) == 0) << "bind";
    CHECK(listen(listener.socket, 64) == 0) << "listen";
    getsockname(listener.socket, reinterpret_cast<sockaddr*>(&address), &size);
    listener.port = ntohs(address.sin_port);
  }
  for (int which : {0, 1}) listeners_[which].thread = std::thread([this, which] { Accept(which); });
}

FakeHub::~FakeHub() {
  std::vector<std::thread> threads;
  for (Listener& listener : listeners_) shutdown(listener.socket, SHUT_RDWR);
  for (Listener& listener : listeners_) listener.thread.join();
  {
    MutexLock lock(&mutex_);
    stops_ = true;
    stopped_.SignalAll();
    for (int connection : connections_) shutdown(connection, SHUT_RDWR);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  for (int connection : connections_) close(connection);
  for (Listener& listener : listeners_) close(listener.socket);
}

std::string FakeHub::Url(int which) const {
  return absl::StrCat("http://127.0.0.1:", listeners_[which].port);
}

void FakeHub::SetFiles(const std::map<std::string, std::string>& files, const std::string& commit) {
  MutexLock lock(&mutex_);
  files_ = files;
  commit_ = commit;
}

void FakeHub::SetFilter(Filter filter) {
  MutexLock lock(&mutex_);
  filter_ = std::move(filter);
}

std::vector<HubRequest> FakeHub::requests() const {
  MutexLock lock(&mutex_);
  return requests_;
}

int FakeHub::Count(const std::string& method, const std::string& part_of_target) const {
  int count = 0;
  for (const HubRequest& request : requests()) {
    count += request.method == method && absl::StrContains(request.target, part_of_target);
  }
  return count;
}

std::string FakeHub::List() const {
  std::string text = absl::StrCat("{\"id\":\"org/model\",\"sha\":\"", commit_, "\",\"siblings\":[");
  const char* separator = "";
  for (const auto& [name, bytes] : files_) {
    absl::StrAppend(&text, separator, "{\"rfilename\":\"", name, "\",\"size\":", bytes.size());
    if (bytes.size() >= kLargeBytes) {
      absl::StrAppend(&text, ",\"lfs\":{\"sha256\":\"", Sha256Of(bytes),
                      "\",\"size\":", bytes.size(), "}");
    }
    text += "}";
    separator = ",";
  }
  return text + "]}";
}

HubReply FakeHub::Answer(const HubRequest& request) const {
  MutexLock lock(&mutex_);
  if (absl::StartsWith(request.target, "/api/models/org/model/revision/"))
    return {.headers = {}, .body = List()};
  const std::string resolve = absl::StrCat("/org/model/resolve/", commit_, "/");
  const bool is_resolve = !request.to_cdn && absl::StartsWith(request.target, resolve);
  const std::string name = request.target.substr(is_resolve ? resolve.size() : 1);
  const auto found = files_.find(name);
  if ((!is_resolve && !request.to_cdn) || found == files_.end())
    return {.status = 404, .headers = {}, .body = "no"};
  const std::string& bytes = found->second;
  if (request.to_cdn) return FileReply(request, bytes);
  if (bytes.size() < kLargeBytes) {
    HubReply reply = FileReply(request, bytes);
    reply.headers.emplace_back("ETag", absl::StrCat("\"", GitIdOf(bytes), "\""));
    reply.headers.emplace_back("X-Repo-Commit", commit_);
    return reply;
  }
  HubReply reply;
  reply.status = 302;
  reply.headers = {{"Location", absl::StrCat(Url(1), "/", name)},
                   {"X-Repo-Commit", commit_},
                   {"X-Linked-Etag", absl::StrCat("\"", Sha256Of(bytes), "\"")},
                   {"X-Linked-Size", absl::StrCat(bytes.size())}};
  return reply;
}

void FakeHub::Accept(int which) {
  while (true) {
    const int connection = accept4(listeners_[which].socket, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return;
    MutexLock lock(&mutex_);
    connections_.push_back(connection);
    threads_.emplace_back([this, which, connection] { Serve(which, connection); });
  }
}

void FakeHub::Serve(int which, int connection) {
  std::string rest;
  while (std::optional<HubRequest> request = Receive(connection, &rest)) {
    request->to_cdn = which == 1;
    Filter filter;
    {
      MutexLock lock(&mutex_);
      requests_.push_back(*request);
      filter = filter_;
    }
    std::optional<HubReply> reply = filter ? filter(*request) : std::nullopt;
    if (!reply.has_value()) reply = Answer(*request);
    const int64_t length = reply->content_length >= 0 ? reply->content_length
                                                      : static_cast<int64_t>(reply->body.size());
    std::string head =
        absl::StrCat("HTTP/1.1 ", reply->status, " x\r\nContent-Length: ", length, "\r\n");
    for (const auto& [name, value] : reply->headers)
      absl::StrAppend(&head, name, ": ", value, "\r\n");
    const bool has_body = request->method != "HEAD";
    std::string body = has_body ? reply->body : "";
    if (reply->send_bytes >= 0) body.resize(std::min<size_t>(body.size(), reply->send_bytes));
    if (!SendAll(connection, head + "\r\n" + body)) break;
    if (reply->then == HubReply::Then::kClose) break;
    if (reply->then == HubReply::Then::kStall) {
      MutexLock lock(&mutex_);
      while (!stops_) stopped_.Wait(&mutex_);
    }
  }
  shutdown(connection, SHUT_RDWR);
}

}  // namespace fastgen::testing
