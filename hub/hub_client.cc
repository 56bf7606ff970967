#include "hub/hub_client.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "hub/ranged_download.h"

namespace fastgen {
namespace {

constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);
constexpr absl::Duration kListTimeout = absl::Seconds(30);
constexpr int kMaxHeadRedirects = 5;
constexpr int64_t kMaxFileBytes = int64_t{1} << 60;

std::string HeaderOf(const HttpAnswer& answer, const char* name) {
  const auto found = answer.headers.find(name);
  return found != answer.headers.end() ? found->second : "";
}

// W/"abc" and "abc" -> abc.
std::string PlainEtag(absl::string_view etag) {
  absl::ConsumePrefix(&etag, "W/");
  absl::ConsumePrefix(&etag, "\"");
  absl::ConsumeSuffix(&etag, "\"");
  return std::string(etag);
}

// "https://host:port", which a token is meant for.
std::string OriginOf(const std::string& url) {
  const size_t host = url.find("://");
  return host == std::string::npos ? "" : url.substr(0, url.find_first_of("/?#", host + 3));
}

bool IsRedirect(int status) { return status >= 300 && status < 400; }

}  // namespace

HubClient::HubClient(const HubSettings& settings, const HttpLimits& limits,
                     const RetryPolicy& retry)
    : settings_(settings), retry_(retry), http_(limits) {}

std::string HubClient::FileUrl(const HubId& id, const std::string& commit,
                               const std::string& file) const {
  return absl::StrCat(settings_.endpoint, "/", id.repo, "/resolve/", commit, "/",
                      UrlEscape(file, Slash::kKeep));
}

absl::StatusOr<HttpAnswer> HubClient::AskOnce(const HttpRequest& first, int64_t max_body_bytes) {
  HttpRequest request = first;
  for (int i = 0; i <= kMaxHeadRedirects; ++i) {
    ASSIGN_OR_RETURN(HttpAnswer answer, http_.Run(request, max_body_bytes));
    const bool leads_on = IsRedirect(answer.status) &&
                          OriginOf(answer.redirect_url) == OriginOf(first.url) &&
                          HeaderOf(answer, "x-linked-etag").empty();
    if (!leads_on) return answer;
    request.url = answer.redirect_url;
  }
  return absl::FailedPreconditionError(
      absl::StrCat(HostOf(first.url), ": more than ", kMaxHeadRedirects, " redirects"));
}

absl::StatusOr<HttpAnswer> HubClient::Ask(const HttpRequest& request, int64_t max_body_bytes,
                                          const RetryPolicy& retry) {
  Backoff backoff(retry);
  while (true) {
    absl::StatusOr<HttpAnswer> answer = AskOnce(request, max_body_bytes);
    if (answer.ok() && !IsPassing(answer->status)) return answer;
    if (!answer.ok() && !absl::IsUnavailable(answer.status())) return answer.status();
    const auto delay = backoff.Next(answer.ok() ? answer->retry_after : absl::ZeroDuration());
    if (!delay.has_value()) return answer;
    LogInfo(absl::StrCat(answer.ok() ? absl::StrCat(HostOf(request.url), ": HTTP ", answer->status)
                                     : answer.status().message(),
                         "; again in ",
                         absl::FormatDuration(absl::Ceil(*delay, absl::Milliseconds(100)))));
    const absl::Time until = absl::Now() + *delay;
    while (absl::Now() < until) http_.Wait(until - absl::Now() + absl::Milliseconds(1));
  }
}

absl::Status HubClient::Refusal(const HubId& id, const HttpAnswer& answer) const {
  const std::string code = HeaderOf(answer, "x-error-code");
  const std::string hub = WithoutUserinfo(settings_.endpoint);
  const std::string page = absl::StrCat(hub, "/", id.repo);
  if (code == "RevisionNotFound") {
    return absl::NotFoundError(
        absl::StrCat(id.repo, ": has no revision ", id.revision, " (HTTP 404)"));
  }
  if (code == "RepoNotFound" || answer.status == 404) {
    return absl::NotFoundError(absl::StrCat(id.repo, ": no such model or revision ", id.revision,
                                            " on ", hub, " (HTTP ", answer.status,
                                            "); if it is private, set HF_TOKEN"));
  }
  if (answer.status == 401 || answer.status == 403) {
    return absl::PermissionDeniedError(absl::StrCat(
        id.repo, ": access refused (HTTP ", answer.status, "): accept the licence at ", page,
        " and ", settings_.token.empty() ? "set HF_TOKEN" : "check that HF_TOKEN may read it"));
  }
  if (answer.status == 429) {
    return absl::UnavailableError(
        absl::StrCat(id.repo, ": the hub answers too many requests (HTTP 429): try again later",
                     settings_.token.empty() ? ", or set HF_TOKEN" : ""));
  }
  return absl::UnavailableError(absl::StrCat(id.repo, ": ", hub, " answered HTTP ", answer.status));
}

absl::StatusOr<HubListing> HubClient::List(const HubId& id, const RetryPolicy& retry) {
  HttpRequest request;
  request.url = absl::StrCat(settings_.endpoint, "/api/models/", id.repo, "/revision/",
                             UrlEscape(id.revision, Slash::kEscape), "?blobs=true");
  request.token = settings_.token;
  request.timeout = retry.max_attempts > 1 ? kListTimeout : kAnswerTimeout;
  const absl::StatusOr<HttpAnswer> answer = Ask(request, kMaxListingBytes, retry);
  if (!answer.ok()) {
    return absl::Status(answer.status().code(), absl::StrCat(id.repo, ": the hub cannot be asked (",
                                                             answer.status().message(), ")"));
  }
  if (answer->status != 200) return Refusal(id, *answer);
  absl::StatusOr<HubListing> listing = ParseHubListing(answer->body);
  if (listing.ok()) return listing;
  return absl::DataLossError(absl::StrCat(id.repo, ": ", listing.status().message()));
}

absl::StatusOr<FileMetadata> HubClient::Metadata(const HubId& id, const std::string& commit,
                                                 const HubFile& file) {
  const std::string label = absl::StrCat(id.repo, "/", file.name);
  HttpRequest request;
  request.method = HttpMethod::kHead;
  request.url = FileUrl(id, commit, file.name);
  request.token = settings_.token;
  request.timeout = kAnswerTimeout;
  const absl::StatusOr<HttpAnswer> answer = Ask(request, 0, retry_);
  if (!answer.ok()) {
    return absl::Status(answer.status().code(), absl::StrCat(label, ": the hub cannot be asked (",
                                                             answer.status().message(), ")"));
  }
  if (answer->status != 200 && !IsRedirect(answer->status)) return Refusal(id, *answer);
  const std::string linked_etag = HeaderOf(*answer, "x-linked-etag");
  const std::string linked_size = HeaderOf(*answer, "x-linked-size");
  const bool is_plain = answer->status == 200;  // the length of a redirect is that of its own text
  FileMetadata metadata;
  metadata.etag = PlainEtag(!linked_etag.empty() ? linked_etag : HeaderOf(*answer, "etag"));
  if (!IsSafeEtag(metadata.etag)) {
    return absl::DataLossError(absl::StrCat(label, ": the hub tells no usable ETag of the file"));
  }
  const std::string size = !linked_size.empty() ? linked_size
                           : is_plain           ? HeaderOf(*answer, "content-length")
                                                : "";
  if (!absl::SimpleAtoi(size, &metadata.size_bytes)) metadata.size_bytes = file.size_bytes;
  if (metadata.size_bytes < 0 || metadata.size_bytes > kMaxFileBytes) {
    return absl::DataLossError(absl::StrCat(label, ": the hub tells no usable size of the file"));
  }
  if (file.size_bytes >= 0 && file.size_bytes != metadata.size_bytes) {
    return absl::DataLossError(absl::StrCat(label, ": the hub tells two sizes, ", file.size_bytes,
                                            " and ", metadata.size_bytes, " bytes"));
  }
  if (!file.sha256.empty() && metadata.etag.size() == 64 && metadata.etag != file.sha256) {
    return absl::DataLossError(absl::StrCat(label, ": the hub tells two checksums, ", file.sha256,
                                            " and ", metadata.etag));
  }
  return metadata;
}

}  // namespace fastgen
