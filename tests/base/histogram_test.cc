#include "base/histogram.h"

#include <thread>
#include <vector>

#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

TEST_CASE("a value belongs to the first bound that is not below it", "[base]") {
  Histogram histogram({1, 2, 5});
  for (const double value : {0.0, 1.0, 1.5, 2.0, 5.0, 5.1, 1000.0}) histogram.Observe(value);
  const HistogramCounts counts = histogram.Read();
  CHECK(counts.bounds == std::vector<double>{1, 2, 5});
  CHECK(counts.counts == std::vector<int64_t>{2, 2, 1, 2});
  CHECK(counts.total() == 7);
  CHECK(counts.sum == 1014.6);
}

TEST_CASE("a value that was seen several times counts as often in counts and sum", "[base]") {
  Histogram histogram({10});
  histogram.Observe(4, 3);
  histogram.Observe(11, 2);
  const HistogramCounts counts = histogram.Read();
  CHECK(counts.counts == std::vector<int64_t>{3, 2});
  CHECK(counts.sum == 34);
}

TEST_CASE("threads that observe at once lose no value, and counts never fall", "[base]") {
  Histogram histogram({0, 1, 2});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&histogram] {
      for (int i = 0; i < 20000; ++i) histogram.Observe(i % 4);
    });
  }
  int64_t last = 0;
  bool fell = false;
  for (int i = 0; i < 1000; ++i) {
    const int64_t total = histogram.Read().total();
    fell = fell || total < last;
    last = total;
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(fell);
  const HistogramCounts counts = histogram.Read();
  CHECK(counts.counts == std::vector<int64_t>{20000, 20000, 20000, 20000});
  CHECK(counts.sum == 120000);
}

}  // namespace
}  // namespace fastgen
