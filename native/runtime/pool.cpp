#include "pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lavolta {
namespace {

// Between two jobs of one run there are a few microseconds; to block and wake takes tens.
constexpr uint32_t kBurstSpinUs = 50;

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

}  // namespace

Pool::Pool(uint32_t threads, uint32_t spin_us, std::vector<uint32_t> cores) : spin_us_(spin_us), cores_(std::move(cores)) {
    try {
        for (uint32_t thread = 1; thread < threads; ++thread) workers_.emplace_back(&Pool::work, this, thread);
    } catch (...) {
        // The destructor does not run for a half-built pool, and a joinable thread must not be destroyed.
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        throw;
    }
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

// True as soon as the condition is, false when it did not become true in the time that a thread may spin now.
template <class Condition>
bool Pool::spin(const Condition& condition) const {
    const auto begin = std::chrono::steady_clock::now();
    while (true) {
        for (int i = 0; i < 32; ++i) {
            if (condition()) return true;
            pause();
        }
        const auto limit = std::chrono::microseconds(burst_.load() && spin_us_ < kBurstSpinUs ? kBurstSpinUs : spin_us_);
        if (std::chrono::steady_clock::now() - begin >= limit) return false;
    }
}

// Shows the workers a new job and returns its number.
uint32_t Pool::publish(const Body* body, size_t items) {
    const uint32_t present = job() + 1;
    // Close the old job before anything of the new one can be seen: a late worker could take one more item of it.
    ticket_.store(uint64_t{present - 1} << 32 | UINT32_MAX);
    body_.store(body);
    items_.store(items);
    finished_.store(0);
    ticket_.store(uint64_t{present} << 32);
    if (sleepers_.load() > 0) {
        // A sleeper that has looked and does not wait yet holds the lock.
        { std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
    return present;
}

void Pool::run(size_t items, const Body& body) {
    if (workers_.empty() || items <= 1) {
        for (size_t item = 0; item < items; ++item) body(item, 0);
        return;
    }
    const uint32_t present = publish(&body, items);
    drain(present, 0);
    const auto finished = [&] { return finished_.load() == items; };
    if (finished() || spin(finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    caller_sleeps_.store(true);
    done_.wait(lock, finished);
    caller_sleeps_.store(false);
}

void Pool::drain(uint32_t present, uint32_t thread) {
    uint64_t ticket = ticket_.load();
    while (true) {
        const size_t items = items_.load();
        const size_t item = static_cast<uint32_t>(ticket);
        if ((ticket >> 32) != present || item >= items) return;
        // Success proves that the job is the one that the ticket and `items` were read of, and holds it until this item is
        // finished.
        if (!ticket_.compare_exchange_weak(ticket, ticket + 1)) continue;
        (*body_.load())(item, thread);
        if (finished_.fetch_add(1) + 1 == items && caller_sleeps_.load()) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            done_.notify_one();
        }
        ticket = ticket_.load();
    }
}

bool Pool::wait_for_job(uint32_t seen) {
    const auto ready = [&] { return stop_.load() || job() != seen; };
    if (!spin(ready)) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, ready);
        sleepers_.fetch_sub(1);
    }
    return !stop_.load();
}

void Pool::work(uint32_t thread) {
    if (!cores_.empty()) stay_on(cores_);
    for (uint32_t seen = 0; wait_for_job(seen);) {
        seen = job();
        drain(seen, thread);
    }
}

}  // namespace lavolta
