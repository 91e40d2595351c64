#include "peak.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>

namespace lavolta {
namespace {

double fastest(PeakKernel* kernel) {
    using Clock = std::chrono::steady_clock;
    constexpr uint64_t rounds = 20'000;  // a tenth of a millisecond: shorter than a time slice, long for the clock
    double best = 0.0;
    const auto end = Clock::now() + std::chrono::milliseconds(30);
    do {
        const auto start = Clock::now();
        const uint64_t done = kernel(rounds);
        const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
        best = std::max(best, 2.0 * static_cast<double>(done) / ns);
    } while (Clock::now() < end);
    return best;
}

}  // namespace

double measured_peak_gflops(Isa isa) { return fastest(select_kernels(isa).peak); }

double measured_peak_int8_gops(Isa isa) { return fastest(select_kernels(isa).peak_int8); }

double known_peak(bool int8, Isa isa) {
    static std::mutex mutex;
    static std::array<double, kIsaCount> known[2];
    const KernelSet kernels = select_kernels(isa);
    if ((int8 ? kernels.peak_int8_isa : kernels.peak_isa) != isa) return 0.0;
    const std::lock_guard<std::mutex> lock(mutex);
    double& peak = known[int8 ? 1 : 0][static_cast<size_t>(isa)];
    if (peak == 0.0) peak = int8 ? measured_peak_int8_gops(isa) : measured_peak_gflops(isa);
    return peak;
}

}  // namespace lavolta
