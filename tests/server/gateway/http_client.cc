#include "tests/server/gateway/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/strings.h"

namespace fastgen::testing {

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::vector<std::string> HttpReply::events() const {
  std::vector<std::string> events;
  size_t start = 0;
  while (start < body.size()) {
    const size_t end = std::min(body.find("\n\n", start), body.size());
    const std::string event = body.substr(start, end - start);
    if (event.rfind("data: ", 0) == 0) events.push_back(event.substr(6));
    start = end + 2;
  }
  return events;
}

std::vector<std::pair<std::string, std::string>> HttpReply::named_events() const {
  std::vector<std::pair<std::string, std::string>> events;
  size_t start = 0;
  while (start < body.size()) {
    const size_t end = std::min(body.find("\n\n", start), body.size());
    const std::string event = body.substr(start, end - start);
    start = end + 2;
    if (event[0] == ':') continue;
    const size_t data = event.find("\ndata: ");
    if (event.rfind("event: ", 0) == 0 && data != std::string::npos) {
      events.emplace_back(event.substr(7, data - 7), event.substr(data + 7));
    } else {
      events.emplace_back("(unnamed)", event);
    }
  }
  return events;
}

HttpClient::HttpClient(const std::string& address, int receive_buffer_bytes) {
  if (address.rfind("unix:", 0) == 0) {
    ConnectUnix(address.substr(5));
    return;
  }
  const size_t colon = address.rfind(':');
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
  socket_ = socket(AF_INET, SOCK_STREAM, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  }
  const int one = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) Close();
}

void HttpClient::ConnectUnix(const std::string& path) {
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  path.copy(to.sun_path, sizeof(to.sun_path) - 1);
  socket_ = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) Close();
}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

void HttpClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the answer, or its absence, tells
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool HttpClient::Fill(absl::Time deadline) {
  if (socket_ < 0) return false;
  const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
  pollfd waiting = {socket_, POLLIN, 0};
  if (left <= 0 || poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
  char bytes[1 << 16];
  const ssize_t num_bytes = recv(socket_, bytes, sizeof(bytes), 0);
  if (num_bytes <= 0) return false;
  input_.append(bytes, static_cast<size_t>(num_bytes));
  return true;
}

bool HttpClient::FillUntil(std::string_view text, absl::Time deadline) {
  while (input_.find(text) == std::string::npos) {
    if (!Fill(deadline)) return false;
  }
  return true;
}

bool HttpClient::ReadUntil(std::string_view text, absl::Duration timeout) {
  return FillUntil(text, absl::Now() + timeout);
}

bool HttpClient::ReadToEnd(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (Fill(deadline)) input_.clear();
  return absl::Now() < deadline;
}

HttpReply HttpClient::ReadHead(absl::Time deadline) {
  HttpReply reply;
  if (!FillUntil("\r\n\r\n", deadline)) return reply;
  const size_t end = input_.find("\r\n\r\n");
  std::string head = input_.substr(0, end + 2);
  input_.erase(0, end + 4);
  reply.status = std::atoi(head.c_str() + head.find(' '));
  size_t line = head.find("\r\n") + 2;
  while (line < head.size()) {
    const size_t line_end = head.find("\r\n", line);
    const size_t colon = head.find(':', line);
    const std::string value = head.substr(colon + 1, line_end - colon - 1);
    reply.headers[absl::AsciiStrToLower(head.substr(line, colon - line))] =
        std::string(absl::StripAsciiWhitespace(value));
    line = line_end + 2;
  }
  return reply;
}

std::string HttpClient::Take(size_t num_bytes, absl::Time deadline) {
  while (input_.size() < num_bytes && Fill(deadline)) {
  }
  const size_t taken = std::min(num_bytes, input_.size());
  std::string bytes = input_.substr(0, taken);
  input_.erase(0, taken);
  return bytes;
}

std::string HttpClient::ReadChunks(absl::Time deadline) {
  std::string body;
  while (FillUntil("\r\n", deadline)) {
    const size_t size = std::strtoul(input_.c_str(), nullptr, 16);
    input_.erase(0, input_.find("\r\n") + 2);
    body += Take(size, deadline);
    Take(2, deadline);
    if (size == 0) return body;
  }
  return body + "(cut)";
}

HttpReply HttpClient::Read(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  HttpReply reply = ReadHead(deadline);
  if (reply.status == 0 || reply.status == 204 || reply.status == 100) return reply;
  if (reply.header("transfer-encoding") == "chunked") {
    reply.body = ReadChunks(deadline);
  } else if (!reply.header("content-length").empty()) {
    reply.body = Take(std::strtoul(reply.header("content-length").c_str(), nullptr, 10), deadline);
  } else {
    while (Fill(deadline)) {
    }
    reply.body = std::exchange(input_, "");
  }
  return reply;
}

HttpReply HttpClient::ReadHeadOnly(absl::Duration timeout) {
  return ReadHead(absl::Now() + timeout);
}

std::string HttpClient::PostText(const std::string& path, const std::string& body,
                                 const std::string& headers) {
  return absl::StrCat(
      "POST ", path,
      " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: ", body.size(),
      "\r\n", headers, "\r\n", body);
}

HttpReply HttpClient::Get(const std::string& path) {
  Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\n\r\n"));
  return Read();
}

HttpReply HttpClient::Post(const std::string& path, const std::string& body,
                           const std::string& headers) {
  Send(PostText(path, body, headers));
  return Read();
}

}  // namespace fastgen::testing
