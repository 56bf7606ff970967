#include "server/access_control.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "server/grpc_status.h"

namespace fastgen {
namespace {

constexpr char kIdSeparator = ' ';  // in no client's id and in no key's name
constexpr absl::string_view kBearer = "bearer ";
// Longer than any key; what is longer is not hashed.
constexpr size_t kMaxSecretBytes = 1024;

// The only value of that metadata; "" when there is none. Two are refused: of two, a proxy in between may have checked
// the other one.
template <typename Metadata>
absl::StatusOr<absl::string_view> OnlyValue(const Metadata& metadata, const char* name) {
  absl::string_view found;
  bool any = false;
  for (const auto& [key, value] : metadata) {
    if (key != name) continue;
    if (std::exchange(any, true)) {
      return absl::UnauthenticatedError(absl::StrCat(name, " is given more than once"));
    }
    found = absl::string_view(value.data(), value.size());
  }
  return found;
}

template <typename Metadata>
absl::StatusOr<absl::string_view> SecretOf(const Metadata& metadata) {
  ASSIGN_OR_RETURN(absl::string_view secret, OnlyValue(metadata, "authorization"));
  if (absl::StartsWithIgnoreCase(secret, kBearer)) {
    secret = absl::StripAsciiWhitespace(secret.substr(kBearer.size()));
  } else {
    ASSIGN_OR_RETURN(secret, OnlyValue(metadata, "x-api-key"));
  }
  if (secret.empty()) {
    return absl::UnauthenticatedError(
        "an API key is needed: authorization: Bearer KEY, or x-api-key: KEY");
  }
  return secret;
}

std::string Joined(const std::string& name, const std::string& request_id) {
  return absl::StrCat(name, std::string(1, kIdSeparator), request_id);
}

absl::Status UnknownKey() { return absl::UnauthenticatedError("this API key is not known here"); }

}  // namespace

absl::Status AccessControl::Load() {
  if (path_.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(ApiKeys loaded, ApiKeys::Load(path_));
  auto keys = std::make_shared<const ApiKeys>(std::move(loaded));
  MutexLock lock(&mutex_);
  for (const ApiKey& key : keys->keys()) {
    std::shared_ptr<KeyAccount>& account = accounts_[key.name];
    if (account == nullptr) account = std::make_shared<KeyAccount>(key.name, clock_);
    account->SetLimits(key.limits);
  }
  LogInfo(FromAbsl(absl::StrCat("API keys: ", keys->keys().size(), " in ", path_)));
  keys_ = std::move(keys);
  return absl::OkStatus();
}

absl::StatusOr<Caller> AccessControl::Check(const grpc::ServerContextBase& context,
                                            ScopeSet any_of) const {
  if (path_.empty()) return Caller{};
  ASSIGN_OR_RETURN(const absl::string_view secret, SecretOf(context.client_metadata()));
  return CallerWith(FromAbsl(secret), any_of);
}

absl::Status AccessControl::CheckKey(const Headers& headers) const {
  if (path_.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const absl::string_view secret, SecretOf(headers));
  return CallerWith(FromAbsl(secret), {}).status();
}

absl::StatusOr<Caller> AccessControl::CallerWith(std::string_view secret, ScopeSet any_of) const {
  if (secret.size() > kMaxSecretBytes) return UnknownKey();
  std::shared_ptr<const ApiKeys> keys;
  {
    MutexLock lock(&mutex_);
    keys = keys_;
  }
  CHECK(keys != nullptr) << "Check before Load";
  const ApiKey* const key = keys->Find(secret);
  if (key == nullptr) return UnknownKey();
  if (!any_of.empty() && !key->scopes.Overlaps(any_of)) {
    return absl::PermissionDeniedError(
        absl::StrCat("the API key ", key->name, " lacks the scope ", any_of.ToString()));
  }
  MutexLock lock(&mutex_);
  return Caller{accounts_.at(key->name), key->scopes};
}

grpc::ServerUnaryReactor* AccessControl::Refuse(grpc::CallbackServerContext* context,
                                                ScopeSet any_of) const {
  const absl::Status status = Check(*context, any_of).status();
  if (status.ok()) return nullptr;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::StatusOr<std::unique_ptr<Permit>> AccessControl::Admit(const Caller& caller,
                                                             const std::string& request_id) const {
  if (caller.account == nullptr) return nullptr;
  RETURN_IF_ERROR(caller.account->Enter());
  return std::make_unique<Permit>(caller.account, request_id, clock_);
}

absl::StatusOr<std::string> AccessControl::EngineId(const Caller& caller,
                                                    const std::string& request_id) {
  if (caller.account == nullptr) return request_id;
  if (request_id.size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("request_id: ", request_id.size(),
                                                   " bytes exceed the limit of ",
                                                   kMaxRequestIdBytes,
                                                   " bytes where there are API keys"));
  }
  return OwnId(caller, request_id);
}

std::string AccessControl::OwnId(const Caller& caller, const std::string& request_id) {
  return caller.account == nullptr ? request_id : Joined(caller.account->name(), request_id);
}

std::vector<std::string> AccessControl::EngineIds(const Caller& caller,
                                                  const std::string& request_id) const {
  std::vector<std::string> ids = {OwnId(caller, request_id)};
  if (caller.account == nullptr || !caller.scopes.Overlaps({Scope::kAdmin})) return ids;
  MutexLock lock(&mutex_);
  for (const auto& [name, account] : accounts_) {
    if (account != caller.account && account->num_live() > 0) ids.push_back(Joined(name, request_id));
  }
  return ids;
}

AccessControl::Owned AccessControl::SplitEngineId(std::string_view engine_id) {
  const size_t separator = engine_id.find(kIdSeparator);
  if (separator == std::string_view::npos) return {"", engine_id};
  return {engine_id.substr(0, separator), engine_id.substr(separator + 1)};
}

}  // namespace fastgen
