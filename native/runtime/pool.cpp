#include "pool.h"

#include <chrono>

namespace lavolta {

Pool::Pool(uint32_t threads, uint32_t spin_us) : spin_us_(spin_us) {
    try {
        for (uint32_t thread = 1; thread < threads; ++thread) workers_.emplace_back(&Pool::work, this, thread);
    } catch (...) {
        // The destructor does not run for a half-built pool, and a joinable thread must not be destroyed.
        stop_ = true;
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

void Pool::run(size_t items, const Body& body) {
    if (workers_.empty() || items <= 1) {
        for (size_t item = 0; item < items; ++item) body(item, 0);
        return;
    }
    const uint32_t present = job() + 1;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        // Close the old job before anything of the new one can be seen: a late worker could take one more item of it.
        ticket_.store(uint64_t{present - 1} << 32 | UINT32_MAX, std::memory_order_release);
        body_.store(&body, std::memory_order_release);
        items_.store(items, std::memory_order_release);
        finished_.store(0, std::memory_order_relaxed);
        ticket_.store(uint64_t{present} << 32, std::memory_order_release);
    }
    wake_.notify_all();
    drain(present, 0);
    const auto finished = [&] { return finished_.load(std::memory_order_acquire) == items; };
    // Spin for the last items as long as an idle worker would, then block.
    if (spin_us_ > 0) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us_);
        while (!finished() && std::chrono::steady_clock::now() < limit) {
        }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, finished);
}

void Pool::drain(uint32_t present, uint32_t thread) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (true) {
        const size_t items = items_.load(std::memory_order_acquire);
        const size_t item = static_cast<uint32_t>(ticket);
        if ((ticket >> 32) != present || item >= items) return;
        // Success proves that the job is the one that the ticket and `items` were read of, and holds it until this item is
        // finished.
        if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        (*body_.load(std::memory_order_acquire))(item, thread);
        if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == items) {
            std::lock_guard<std::mutex> lock(mutex_);
            done_.notify_one();
        }
        ticket = ticket_.load(std::memory_order_acquire);
    }
}

bool Pool::wait_for_job(uint32_t seen) {
    if (spin_us_ > 0) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us_);
        while (std::chrono::steady_clock::now() < limit) {
            if (job() != seen) return true;
            if (stop_) return false;
        }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return stop_ || job() != seen; });
    return !stop_;
}

void Pool::work(uint32_t thread) {
    for (uint32_t seen = 0; wait_for_job(seen);) {
        seen = job();
        drain(seen, thread);
    }
}

}  // namespace lavolta
