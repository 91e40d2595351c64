#include "peak.h"

#include <algorithm>
#include <chrono>

namespace lavolta {

double measured_peak_gflops(Isa isa) {
    using Clock = std::chrono::steady_clock;
    const KernelSet kernels = select_kernels(isa);
    constexpr uint64_t rounds = 20'000;  // a tenth of a millisecond: shorter than a time slice, long for the clock
    double best = 0.0;
    const auto end = Clock::now() + std::chrono::milliseconds(30);
    do {
        const auto start = Clock::now();
        const uint64_t done = kernels.peak(rounds);
        const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
        best = std::max(best, 2.0 * static_cast<double>(done) / ns);
    } while (Clock::now() < end);
    return best;
}

}  // namespace lavolta
