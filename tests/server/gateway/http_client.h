// HttpClient: one raw socket to the gateway under test: says exactly what it is told to, reads
// exactly what comes.
//
// Every read has a time limit, so that a hang is a failed test.
// Thread rule: one thread at a time.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace fastgen::testing {

struct HttpReply {
  int status = 0;                              // 0: none came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;

  std::string header(const std::string& name) const;
  // The `data:` payloads of an event stream.
  std::vector<std::string> events() const;
  // {name, payload} of each event of a stream that names all of its events; comments are left out.
  std::vector<std::pair<std::string, std::string>> named_events() const;
};

class HttpClient {
 public:
  // `address`: "127.0.0.1:port" or "unix:/path". `receive_buffer_bytes` > 0 makes a slow reader slow.
  explicit HttpClient(const std::string& address, int receive_buffer_bytes = 0);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  bool connected() const { return socket_ >= 0; }
  void Send(std::string_view bytes);
  // One whole answer, by Content-Length, chunks or the connection's end.
  HttpReply Read(absl::Duration timeout = absl::Seconds(20));
  HttpReply ReadHeadOnly(absl::Duration timeout = absl::Seconds(20));
  // Reads until `text` has been seen; false when the time is up or the connection ended first.
  bool ReadUntil(std::string_view text, absl::Duration timeout = absl::Seconds(20));
  // True when the server closes the connection (what it still sends is dropped).
  bool ReadToEnd(absl::Duration timeout = absl::Seconds(20));
  // The client's own end.
  void Close();

  HttpReply Get(const std::string& path);
  HttpReply Post(const std::string& path, const std::string& body, const std::string& headers = "");
  static std::string PostText(const std::string& path, const std::string& body,
                              const std::string& headers = "");

 private:
  void ConnectUnix(const std::string& path);
  // Appends what has come to `input_`; false at the end or when the time is up.
  bool Fill(absl::Time deadline);
  bool FillUntil(std::string_view text, absl::Time deadline);
  HttpReply ReadHead(absl::Time deadline);
  std::string Take(size_t num_bytes, absl::Time deadline);
  std::string ReadChunks(absl::Time deadline);

  int socket_ = -1;
  std::string input_;
};

}  // namespace fastgen::testing
