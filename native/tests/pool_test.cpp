// Thousands of small jobs, alone and in bursts, so that workers often wake too late; to be built with the thread sanitizer.
#include <cstdio>
#include <optional>
#include <vector>

#include "pool.h"

int main() {
    for (const uint32_t spin_us : {0u, 20u}) {
        for (const uint32_t threads : {1u, 2u, 5u}) {
            lavolta::Pool pool(threads, spin_us);
            std::vector<size_t> times(60, 0), expected(60, 0);
            std::optional<lavolta::Pool::Burst> burst;
            for (size_t job = 0; job < 3000; ++job) {
                // Bursts of ten jobs, then ten alone: workers wait in all the ways they can.
                if (job % 20 == 0) burst.emplace(pool);
                if (job % 20 == 10) burst.reset();
                const size_t items = job % (times.size() + 1);
                // Plain counters: an item that two threads got, or that runs after its job, is a race.
                pool.run(items, [&](size_t item, uint32_t thread) { times[item] += thread < threads ? 1 : 1000; });
                for (size_t item = 0; item < items; ++item) ++expected[item];
                if (times != expected) {
                    std::printf("job %zu: an item did not run exactly once\n", job);
                    return 1;
                }
            }
        }
    }
    return 0;
}
