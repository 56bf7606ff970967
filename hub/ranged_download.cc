#include "hub/ranged_download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

// A failure after so many bytes is not one of a row of failures.
constexpr int64_t kProgressBytes = 1 << 20;
constexpr absl::Duration kLongestWait = absl::Milliseconds(500);

struct Piece {
  Piece(int64_t first, int64_t last, const RetryPolicy& retry)
      : begin(first), end(last), backoff(retry) {}
  int64_t begin;
  int64_t end;
  int64_t num_received = 0;  // of them written: all but the last buffer.size()
  int64_t num_at_failure = 0;
  std::string buffer;
  bool is_ranged = false;   // of the attempt under way
  bool is_checked = false;  // its answer's head
  Backoff backoff;
  absl::Time start_at = absl::InfinitePast();
  std::unique_ptr<HttpTransfer> transfer;

  bool is_done() const { return begin + num_received == end; }
};

class File {
 public:
  explicit File(int file) : file_(file) {}
  ~File() {
    if (file_ >= 0) close(file_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return file_; }

 private:
  const int file_;
};

// The file that grows, -1 with errno when it cannot be had. In a cache that others may write to,
// its name may lead elsewhere or to a pipe: then it is made anew, and what it led to stays as it
// was.
int OpenPart(const std::string& path) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int found = open(path.c_str(), kFlags, 0644);
  struct stat status;
  if (found >= 0 && fstat(found, &status) == 0 && S_ISREG(status.st_mode)) return found;
  if (found >= 0) close(found);
  // ELOOP: a symlink; EISDIR: a directory; ENXIO: a socket.
  if (found < 0 && errno != ELOOP && errno != EISDIR && errno != ENXIO) return -1;
  if (std::remove(path.c_str()) != 0) return -1;
  return open(path.c_str(), kFlags | O_EXCL, 0644);
}

class RangedDownload {
 public:
  RangedDownload(HttpClient* client, const RangedFile& file, const RangeOptions& options,
                 const std::function<Digest()>& new_digest,
                 const std::function<void(int64_t)>& on_bytes)
      : client_(client),
        file_(file),
        options_(options),
        new_digest_(new_digest),
        on_bytes_(on_bytes),
        out_(OpenPart(file.path)),
        digest_(new_digest()),
        whole_backoff_(options.retry) {}

  absl::StatusOr<std::string> Run();

 private:
  absl::Status Resume();
  absl::Status BeginAnew();
  void AddPieces();
  // The time until a piece that waits may be started.
  absl::Duration StartPieces();
  void Start(Piece* piece);
  bool OnBytes(Piece* piece, const HttpAnswer& answer, std::string_view bytes);
  // OK: the bytes belong at the piece's end.
  absl::Status CheckRange(const Piece& piece, const HttpAnswer& answer);
  absl::Status FinishPieces();
  absl::Status AfterEnd(Piece* piece);
  absl::Status TryAgain(Piece* piece, const absl::Status& reason, absl::Duration retry_after);
  absl::Status Write(std::string_view bytes);
  // Writes what is next in order.
  absl::Status Flush();
  void Report();

  HttpClient* const client_;
  const RangedFile& file_;
  const RangeOptions& options_;
  const std::function<Digest()>& new_digest_;
  const std::function<void(int64_t)>& on_bytes_;
  const File out_;
  Digest digest_;
  int64_t num_written_ = 0;
  int64_t num_planned_ = 0;   // pieces have been made up to here
  std::deque<Piece> pieces_;  // in order; the first begins at or before num_written_
  absl::Status failure_;      // of a callback
  Backoff whole_backoff_;     // when only the whole file can be asked for
  absl::Time not_before_ = absl::InfinitePast();
  bool ranges_ignored_ = false;
  bool begin_anew_ = false;
};

absl::StatusOr<std::string> RangedDownload::Run() {
  if (out_.get() < 0) {
    return absl::UnavailableError(
        absl::StrCat(file_.path, ": cannot be written (", std::strerror(errno), ")"));
  }
  RETURN_IF_ERROR(Resume());
  while (num_written_ < file_.size_bytes) {
    AddPieces();
    client_->Wait(StartPieces());
    RETURN_IF_ERROR(failure_);
    if (std::exchange(begin_anew_, false)) {
      RETURN_IF_ERROR(BeginAnew());
      continue;
    }
    RETURN_IF_ERROR(FinishPieces());
    RETURN_IF_ERROR(Flush());
    Report();
  }
  if (fdatasync(out_.get()) != 0) {
    return absl::UnavailableError(
        absl::StrCat(file_.path, ": cannot be written (", std::strerror(errno), ")"));
  }
  return digest_.Finish();
}

absl::Status RangedDownload::Resume() {
  struct stat found;
  if (fstat(out_.get(), &found) != 0 || found.st_size > file_.size_bytes) return BeginAnew();
  num_written_ = num_planned_ = found.st_size;
  Report();
  return digest_.UpdateFromFile(out_.get(), num_written_, file_.path);
}

absl::Status RangedDownload::BeginAnew() {
  pieces_.clear();
  num_written_ = num_planned_ = 0;
  digest_ = new_digest_();
  if (ftruncate(out_.get(), 0) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(file_.path, ": cannot be cut (", std::strerror(errno), ")"));
}

void RangedDownload::AddPieces() {
  const bool is_parallel = !ranges_ignored_ && file_.size_bytes >= options_.min_parallel_bytes;
  const int64_t piece_bytes = is_parallel ? options_.piece_bytes : file_.size_bytes;
  while (num_planned_ < file_.size_bytes &&
         static_cast<int>(pieces_.size()) < options_.window_pieces) {
    const int64_t end = std::min(num_planned_ + piece_bytes, file_.size_bytes);
    pieces_.emplace_back(num_planned_, end, options_.retry);
    if (ranges_ignored_) pieces_.back().start_at = not_before_;
    num_planned_ = end;
  }
}

absl::Duration RangedDownload::StartPieces() {
  int num_running = 0;
  for (const Piece& piece : pieces_) num_running += piece.transfer != nullptr;
  const absl::Time now = absl::Now();
  absl::Duration until_next = kLongestWait;
  for (Piece& piece : pieces_) {
    if (num_running >= options_.num_connections) break;
    if (piece.transfer != nullptr || piece.is_done()) continue;
    if (piece.start_at > now) {
      until_next = std::min(until_next, piece.start_at - now + absl::Milliseconds(1));
      continue;
    }
    Start(&piece);
    ++num_running;
  }
  return until_next;
}

void RangedDownload::Start(Piece* piece) {
  HttpRequest request;
  request.url = file_.url;
  request.token = file_.token;
  const int64_t begin = piece->begin + piece->num_received;
  piece->is_ranged = begin > 0 || piece->end < file_.size_bytes;
  piece->is_checked = false;
  if (piece->is_ranged) {
    request.range_begin = begin;
    request.range_end = piece->end;
  }
  // A deque keeps its elements where they are.
  piece->transfer =
      client_->Start(request, [this, piece](const HttpAnswer& answer, std::string_view bytes) {
        return OnBytes(piece, answer, bytes);
      });
}

// "bytes 5-9/10" -> 5 and 10; nullopt when it is anything else.
std::optional<std::pair<int64_t, int64_t>> ParseContentRange(const HttpAnswer& answer) {
  const auto found = answer.headers.find("content-range");
  if (found == answer.headers.end()) return std::nullopt;
  absl::string_view text = found->second;
  if (!absl::ConsumePrefix(&text, "bytes ")) return std::nullopt;
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(text, absl::MaxSplits('/', 1));
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(halves.first, absl::MaxSplits('-', 1));
  int64_t begin = 0, total = 0;
  if (!absl::SimpleAtoi(ends.first, &begin) || !absl::SimpleAtoi(halves.second, &total))
    return std::nullopt;
  return std::make_pair(begin, total);
}

absl::Status RangedDownload::CheckRange(const Piece& piece, const HttpAnswer& answer) {
  const auto range = ParseContentRange(answer);
  if (!range.has_value())
    return absl::DataLossError(
        absl::StrCat(file_.label, ": a partial answer without Content-Range"));
  const int64_t at = piece.begin + piece.num_received;
  if (range->second != file_.size_bytes) {
    return absl::DataLossError(absl::StrCat(file_.label, ": the file has ", range->second,
                                            " bytes where it is kept, ", file_.size_bytes,
                                            " were announced"));
  }
  if (range->first == at) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file_.label, ": the server sent bytes from ",
                                          range->first, " where ", at, " was asked for"));
}

bool RangedDownload::OnBytes(Piece* piece, const HttpAnswer& answer, std::string_view bytes) {
  if (answer.status != 200 && answer.status != 206)
    return false;  // an error's text; AfterEnd tells of the status
  if (!std::exchange(piece->is_checked, true)) {
    if (answer.status == 200 && piece->is_ranged) {
      ranges_ignored_ = begin_anew_ = true;
      return false;
    }
    if (answer.status == 206) failure_ = CheckRange(*piece, answer);
    if (!failure_.ok()) return false;
  }
  const int64_t room = piece->end - piece->begin - piece->num_received;
  if (static_cast<int64_t>(bytes.size()) > room) {
    failure_ =
        absl::DataLossError(absl::StrCat(file_.label, ": the server sends more bytes than the ",
                                         file_.size_bytes, " that it announced"));
    return false;
  }
  piece->buffer.append(bytes);
  piece->num_received += bytes.size();
  return true;
}

absl::Status RangedDownload::FinishPieces() {
  for (Piece& piece : pieces_) {
    if (piece.transfer == nullptr || !piece.transfer->has_ended()) continue;
    RETURN_IF_ERROR(AfterEnd(&piece));
  }
  return absl::OkStatus();
}

absl::Status RangedDownload::AfterEnd(Piece* piece) {
  const std::unique_ptr<HttpTransfer> transfer = std::move(piece->transfer);
  if (piece->is_done()) return absl::OkStatus();
  const HttpAnswer& answer = transfer->answer();
  if (absl::IsFailedPrecondition(transfer->status())) {
    return absl::FailedPreconditionError(
        absl::StrCat(file_.label, ": cannot be fetched (", transfer->status().message(), ")"));
  }
  if (!transfer->status().ok()) return TryAgain(piece, transfer->status(), absl::ZeroDuration());
  switch (answer.status) {
    case 200:
    case 206:
      return TryAgain(piece, absl::UnavailableError("the connection ended early"),
                      absl::ZeroDuration());
    case 401:
    case 403:
      return absl::PermissionDeniedError(
          absl::StrCat(file_.label, ": the hub refuses the file (HTTP ", answer.status, ")"));
    case 404:
      return absl::NotFoundError(
          absl::StrCat(file_.label, ": the hub has no such file (HTTP 404)"));
    case 416:
      return absl::DataLossError(
          absl::StrCat(file_.label, ": the file has fewer bytes where it is kept than the ",
                       file_.size_bytes, " that were announced (HTTP 416)"));
    default:
      break;
  }
  const absl::Status reason = absl::UnavailableError(absl::StrCat("HTTP ", answer.status));
  if (IsPassing(answer.status)) return TryAgain(piece, reason, answer.retry_after);
  return absl::UnavailableError(
      absl::StrCat(file_.label, ": the hub answered HTTP ", answer.status));
}

absl::Status RangedDownload::TryAgain(Piece* piece, const absl::Status& reason,
                                      absl::Duration retry_after) {
  Backoff* backoff = ranges_ignored_ ? &whole_backoff_ : &piece->backoff;
  if (!ranges_ignored_ && piece->num_received - piece->num_at_failure >= kProgressBytes)
    backoff->Reset();
  piece->num_at_failure = piece->num_received;
  const std::optional<absl::Duration> delay = backoff->Next(retry_after);
  if (!delay.has_value()) {
    return absl::UnavailableError(absl::StrCat(
        file_.label, ": could not be fetched (", reason.message(), ", ", backoff->num_failures(),
        " times in a row): what has come is kept, try again later"));
  }
  LogInfo(absl::StrCat(file_.label, ": ", reason.message(), "; again in ",
                       absl::FormatDuration(absl::Ceil(*delay, absl::Milliseconds(100)))));
  piece->start_at = not_before_ = absl::Now() + *delay;
  begin_anew_ = ranges_ignored_;
  return absl::OkStatus();
}

absl::Status RangedDownload::Flush() {
  while (!pieces_.empty()) {
    Piece& piece = pieces_.front();
    RETURN_IF_ERROR(Write(piece.buffer));
    piece.buffer.clear();
    if (!piece.is_done() || piece.transfer != nullptr) break;
    pieces_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status RangedDownload::Write(std::string_view bytes) {
  digest_.Update(bytes);
  while (!bytes.empty()) {
    const ssize_t done = pwrite(out_.get(), bytes.data(), bytes.size(), num_written_);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && (errno == ENOSPC || errno == EDQUOT)) {
      return absl::ResourceExhaustedError(absl::StrCat(
          file_.path, ": no space left after ", num_written_, " of ", file_.size_bytes, " bytes"));
    }
    if (done < 0)
      return absl::UnavailableError(absl::StrCat(file_.path, ": ", std::strerror(errno)));
    bytes.remove_prefix(done);
    num_written_ += done;
  }
  return absl::OkStatus();
}

void RangedDownload::Report() {
  int64_t num_bytes = num_written_;
  for (const Piece& piece : pieces_) num_bytes += piece.buffer.size();
  if (on_bytes_) on_bytes_(num_bytes);
}

}  // namespace

absl::StatusOr<std::string> DownloadRanges(HttpClient* client, const RangedFile& file,
                                           const RangeOptions& options,
                                           const std::function<Digest()>& new_digest,
                                           const std::function<void(int64_t)>& on_bytes) {
  return RangedDownload(client, file, options, new_digest, on_bytes).Run();
}

bool IsPassing(int http_status) {
  return http_status == 408 || http_status == 429 || http_status >= 500;
}

}  // namespace fastgen
