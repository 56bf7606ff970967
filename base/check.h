// CHECK and DCHECK: our own mistakes, as opposed to what the outside can cause (that is absl::Status).
//
// CHECK(cond) << "detail" is always on and aborts with file, line, condition and detail. DCHECK is compiled out of
// release builds and is for per-token loops only. Neither allocates unless it fails.
// Thread rule: any thread.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace fastgen::internal {

// Collects the message of a failed check and aborts at the end of the full expression.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition) {
    stream_ << file << ":" << line << ": CHECK failed: " << condition << " ";
  }
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  [[noreturn]] ~CheckFailure() {
    std::fprintf(stderr, "%s\n", stream_.str().c_str());
    std::fflush(stderr);
    std::abort();
  }
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Gives both branches of the conditional in CHECK the type void.
struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace fastgen::internal

#define FASTGEN_CHECK_(cond)                        \
  (__builtin_expect(static_cast<bool>(cond), 1))    \
      ? static_cast<void>(0)                        \
      : ::fastgen::internal::Voidify() &            \
            ::fastgen::internal::CheckFailure(__FILE__, __LINE__, #cond).stream()

#define CHECK(cond) FASTGEN_CHECK_(cond)
#define CHECK_EQ(a, b) FASTGEN_CHECK_((a) == (b)) << "(" << (a) << " vs " << (b) << ") "
#define CHECK_NE(a, b) FASTGEN_CHECK_((a) != (b)) << "(" << (a) << " vs " << (b) << ") "
#define CHECK_LE(a, b) FASTGEN_CHECK_((a) <= (b)) << "(" << (a) << " vs " << (b) << ") "
#define CHECK_LT(a, b) FASTGEN_CHECK_((a) < (b)) << "(" << (a) << " vs " << (b) << ") "
#define CHECK_GE(a, b) FASTGEN_CHECK_((a) >= (b)) << "(" << (a) << " vs " << (b) << ") "
#define CHECK_GT(a, b) FASTGEN_CHECK_((a) > (b)) << "(" << (a) << " vs " << (b) << ") "

#ifdef NDEBUG
#define DCHECK(cond) FASTGEN_CHECK_(true || (cond))
#else
#define DCHECK(cond) FASTGEN_CHECK_(cond)
#endif
