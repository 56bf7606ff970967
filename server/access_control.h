// AccessControl: decides who may make a call, and how much a key may have running.
//
//   ASSIGN_OR_RETURN(const Caller caller, access->Check(*context, {Scope::kInfer}));     // at the head of each method
//   ASSIGN_OR_RETURN(std::unique_ptr<Permit> permit, access->Admit(caller, request_id)); // before a request starts
//
// A call shows its key as the metadata "authorization: Bearer KEY" or, without that, "x-api-key: KEY"; the gateway
// passes HTTP's headers of these names on as they are, so one rule serves both. Without a file of keys everybody may do
// everything, and there are no permits.
//
// Request ids of different keys are different ids: inside the daemon the id of a key's request is "NAME ID" (EngineId).
// A client's id holds no space, so these never meet, and no key can learn of another's request, take its id or end it.
// Accounts outlive a reload, also those of keys that are gone from the file: a name owes what it owes.
// Lock order: mutex_ before an account's; under these nothing is called.
// Thread rule: any thread.
// Tested by tests/server/access_control_test.cc and tests/server/access_test.cc.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/api_keys.h"
#include "server/key_account.h"

namespace fastgen {

// Who calls. Without keys: nobody in particular, who may do everything.
struct Caller {
  std::shared_ptr<KeyAccount> account;
  ScopeSet scopes{};
};

class AccessControl {
 public:
  // Ids of clients are so much shorter where there are keys than the engine allows.
  static constexpr size_t kMaxRequestIdBytes = 256 - ApiKeys::kMaxNameBytes - 1;

  // `path`: "": no keys. `clock` outlives this object.
  AccessControl(std::string path, const Clock* clock) : path_(std::move(path)), clock_(clock) {}

  // Reads the file, for the first time or again. On an error the keys stay what they were.
  absl::Status Load();

  // Whether the call's key has one of the scopes; `any_of` empty: whether it has a key. UNAUTHENTICATED,
  // PERMISSION_DENIED naming key and scope.
  absl::StatusOr<Caller> Check(const grpc::ServerContextBase& context, ScopeSet any_of) const;
  // The same for unary methods: nullptr when the call may go on, else the reactor that has refused it.
  grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, ScopeSet any_of) const;
  // Whether HTTP headers (their names in lower case) show a key that is known here: what the gateway asks before it
  // reads a body. What the key may do is decided by the call that follows.
  using Headers = std::vector<std::pair<std::string, std::string>>;
  absl::Status CheckKey(const Headers& headers) const;
  // Check's answer for the key itself. REQUIRES: a file of keys, loaded.
  absl::StatusOr<Caller> CallerWith(std::string_view secret, ScopeSet any_of) const;

  // nullptr where there are no keys. `request_id`: the client's.
  absl::StatusOr<std::unique_ptr<Permit>> Admit(const Caller& caller,
                                                const std::string& request_id) const;

  // The id that a caller's request has inside the daemon. INVALID_ARGUMENT when it is too long.
  static absl::StatusOr<std::string> EngineId(const Caller& caller, const std::string& request_id);
  // The same for an id that is looked for, of any length.
  static std::string OwnId(const Caller& caller, const std::string& request_id);
  // Every id inside the daemon that `request_id` of this caller may mean: of its own request and, with the scope admin,
  // of everybody's live ones.
  std::vector<std::string> EngineIds(const Caller& caller, const std::string& request_id) const;
  // What the parts of such an id are: the key's name, "" without keys, and the client's id.
  struct Owned {
    std::string_view key_name;
    std::string_view request_id;
  };
  static Owned SplitEngineId(std::string_view engine_id);

 private:
  const std::string path_;
  const Clock* const clock_;
  mutable Mutex mutex_;
  std::shared_ptr<const ApiKeys> keys_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<KeyAccount>> accounts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen
